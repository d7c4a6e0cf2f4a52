//go:build !unix

package rounds

import "time"

func cpu() time.Duration { return 0 }
