package httpresilience

import (
	"context"
	"errors"

	"github.com/millrace-go/millrace/internal/hop"
	"github.com/millrace-go/millrace/resilience"
)

// errOnce answers a policy that asks for another attempt of a request that must
// not be sent again. It counts for nothing and is not tried again: what came of
// the first attempt has been counted, or will be.
var errOnce error = &onceError{errors.New("httpresilience: the request must not be sent again")}

type onceError struct{ error }

func (e *onceError) Unwrap() error         { return e.error }
func (*onceError) Class() resilience.Class { return resilience.Cancelled }

// onceContext is the context of a call that must not be sent twice. When it was
// sent it looks like one that is a retry itself, which a Retry leaves alone
// without a pause and without a claim on its budget. A Retry that is Nested, or
// another policy that goes on all the same, gets errOnce.
type onceContext struct {
	context.Context
	exchange *exchange
}

func (c onceContext) Value(key any) any {
	if key == (hop.Key{}) && c.exchange.spent() {
		return max(1, hop.Previous(c.Context))
	}
	return c.Context.Value(key)
}
