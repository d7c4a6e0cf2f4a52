package idempotency

import (
	"crypto/sha256"
	"errors"
	"time"
)

// CallOption configures one call of Do, or the handler of Leased.
type CallOption func(*call)

// call is one call for an operation.
type call struct {
	key         Key
	fingerprint []byte
	issued      time.Time
	anyAge      bool
	wait        time.Duration
	detached    bool
}

// IssuedAt says when the operation was first asked for: an event's time, the
// time in a UUIDv7 (see TimeOfUUID). If that is longer ago than
// Policy.Retention and the store knows nothing of the key, it may have been done
// and forgotten, so it is refused with ErrTooOld. Without a time, or with one
// that lies in the future by more than the retention, age can't be judged: such
// an operation, come again after its result was deleted, is done again.
func IssuedAt(t time.Time) CallOption { return func(c *call) { c.issued = t } }

// AnyAge does operations however old they are. It is for consumers that read
// history, and for operators who send an old one again and know that it was not
// done.
func AnyAge() CallOption { return func(c *call) { c.anyAge = true } }

// Fingerprint says what is asked for under the key, such as the body of the
// request; only its SHA-256 is kept. A call for the same key with another
// fingerprint is refused with ErrMismatch.
func Fingerprint(request []byte) CallOption {
	sum := sha256.Sum256(request)
	return func(c *call) { c.fingerprint = sum[:] }
}

// WaitAtMost replaces Policy.Wait. Zero or less: a duplicate does not wait.
func WaitAtMost(d time.Duration) CallOption { return func(c *call) { c.wait = d } }

// Detached has the function go on when the caller's context ends, for callers
// that vanish, such as clients of a server. Its context then ends only when the
// claim is lost, or after Policy.MaxHold. Waiting for another still ends with
// the caller's context.
func Detached() CallOption { return func(c *call) { c.detached = true } }

func (g *Guard) call(k Key, opts []CallOption) (call, error) {
	c := call{key: k}
	if g == nil {
		return c, errors.New("idempotency: the guard is nil")
	}
	if g.err != nil {
		return c, g.err
	}
	c.wait = g.policy.Wait
	for _, opt := range opts {
		opt(&c)
	}
	if c.anyAge {
		c.issued = time.Time{}
	}
	return c, k.check()
}

// request is what the store is asked. A record outlives the retention by the
// skew of clocks, and by what the issuer's clock is ahead: so one whose
// operation is not yet too old is never gone.
func (g *Guard) request(c call, now time.Time) ClaimRequest {
	r := ClaimRequest{
		Key: c.key, Fingerprint: c.fingerprint, Lease: g.policy.Lease,
		Keep: g.policy.Retention + g.policy.MaxSkew,
	}
	if c.issued.IsZero() {
		return r
	}
	age := now.Sub(c.issued)
	r.Existing = age > g.policy.Retention
	if ahead := -age; ahead > 0 && ahead <= g.policy.Retention {
		r.Keep += ahead
	}
	return r
}
