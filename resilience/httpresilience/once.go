package httpresilience

import (
	"errors"

	"github.com/millrace-go/millrace/resilience"
)

// errOnce answers a policy that asks for another attempt of a request that must
// not be sent again. It counts for nothing: what came of the first attempt has
// been counted, or will be.
var errOnce error = &onceError{errors.New("httpresilience: the request must not be sent again")}

type onceError struct{ error }

func (e *onceError) Unwrap() error         { return e.error }
func (*onceError) Class() resilience.Class { return resilience.Cancelled }
