package idempotency

import (
	"time"

	"github.com/google/uuid"
)

// TimeOfUUID returns the time in a UUID of version 7, to the millisecond, and
// the zero time for any other text. Who sends the id chooses the time, so it
// serves honest clients only: one that dates its ids ahead is not refused when
// it repeats them late.
func TimeOfUUID(id string) time.Time {
	u, err := uuid.Parse(id)
	if err != nil || u.Version() != 7 {
		return time.Time{}
	}
	var ms int64
	for _, b := range u[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms)
}
