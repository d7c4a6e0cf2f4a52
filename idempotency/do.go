package idempotency

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/millrace-go/millrace/eventbus"
)

// Do calls fn once for k, and gives its result to every call for k within the
// retention, in this process and others that share the store. replayed says
// that v is the result of an earlier call.
//
// While fn runs its claim is renewed every third of the lease. If the claim is
// lost nevertheless, fn's context is cancelled with cause ErrLost and fn should
// stop: somebody else may be doing the same. Pass c.Token, or k, on to where the
// effect happens if it can recognise repetitions: fn may be called again after a
// crash between its effect and the record of it.
//
// The result is kept as JSON, of at most Policy.MaxResult bytes. One that is
// larger, or that can't be encoded, is returned to the first caller and is
// ErrNoResult to the others; fn is not called again.
//
// An error of fn is returned as it is, and is not kept, a permanent one neither:
// the key is released and the next call tries again. What must not be tried
// again belongs into T. A panic, too, releases the key, and goes on.
//
// A call for a key that is being worked on waits, see Policy.Wait. Errors:
// *InProgressError, ErrMismatch, ErrTooOld, ErrNoResult; ErrLost if another one
// has taken the operation over; ErrUnrecorded, together with the value, if fn
// succeeded and the store could not be told. Other errors are the store's: fn was
// not called.
func Do[T any](ctx context.Context, g *Guard, k Key, fn func(ctx context.Context, c Claim) (T, error), opts ...CallOption) (v T, replayed bool, err error) {
	c, err := g.call(k, opts)
	if err != nil {
		return v, false, err
	}
	result, replayed, err := g.run(ctx, c, func(ctx context.Context, c Claim) (kept, error) {
		var err error
		if v, err = fn(ctx, c); err != nil {
			return kept{}, err
		}
		text, err := json.Marshal(v)
		if err != nil {
			g.log(k).Error("idempotency: the result can't be encoded, duplicates will not get it", "error", err)
			return kept{kind: keptUnencodable}, nil
		}
		return kept{keptResult, text}, nil
	})
	if !replayed {
		return v, false, err
	}
	text, err := result.value(k)
	if err != nil {
		return v, true, err
	}
	if err := json.Unmarshal(text, &v); err != nil {
		var zero T
		return zero, true, eventbus.Permanent(fmt.Errorf("idempotency: %s: %w: decode it as %T: %w", k, ErrNoResult, v, err))
	}
	return v, true, nil
}

// Do is the function Do with a result that is bytes already.
func (g *Guard) Do(ctx context.Context, k Key, fn func(ctx context.Context, c Claim) ([]byte, error), opts ...CallOption) (result []byte, replayed bool, err error) {
	c, err := g.call(k, opts)
	if err != nil {
		return nil, false, err
	}
	r, replayed, err := g.run(ctx, c, func(ctx context.Context, c Claim) (kept, error) {
		var err error
		result, err = fn(ctx, c)
		return kept{keptResult, result}, err
	})
	if !replayed {
		return result, false, err
	}
	result, err = r.value(k)
	return result, true, err
}
