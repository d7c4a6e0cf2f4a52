package idempotency

import (
	"context"
	"fmt"
	"time"
)

// A Store keeps what has become of operations: claimed by somebody for the time
// of a lease, or done with a result. [MemoryStore], [SQLStore] and package
// redisstore are stores; a [Guard] is what uses them. Package storetest checks
// the contract below.
//
// Methods are safe for concurrent use, also by other processes. Times are
// measured by one clock, the store's; callers pass durations only, so their
// clocks don't matter. An error that is not in the contract says that nothing
// is known about whether the call took effect; every method may be repeated.
type Store interface {
	// Claim takes the operation, or says why not: see State. Of concurrent calls
	// for one key at most one gets StateClaimed. A key can be claimed if it is
	// not known, was released, or if the lease of its holder has ended. Each claim
	// of a key has a higher Token than all before it, also after its record was
	// deleted.
	Claim(ctx context.Context, r ClaimRequest) (Record, error)

	// Renew has the lease end one lease from now. It returns an error with ErrLost
	// in its chain if c is not the latest claim of its key, or no longer claimed.
	// A lease that has ended but was not taken over can be renewed.
	Renew(ctx context.Context, c Claim, lease time.Duration) error

	// Complete ends the claim and keeps result, which may be empty, for keep. What
	// was stored is a copy. Repeated with the same claim it is nil and changes
	// nothing. It returns ErrLost like Renew; result is not kept then.
	Complete(ctx context.Context, c Claim, result []byte, keep time.Duration) error

	// Release ends the claim without a result, so that the key can be claimed
	// again at once. The record stays with its fingerprint and attempts. Repeated
	// with the same claim it is nil. It returns ErrLost like Renew.
	Release(ctx context.Context, c Claim) error
}

// ClaimRequest is what Store.Claim is asked for.
type ClaimRequest struct {
	Key Key
	// Lease is how long the claim is held unless it is renewed. Positive.
	Lease time.Duration
	// Keep is how long the record stays after the lease, at least. Positive. A
	// record whose time is over counts as not known, whether it was deleted or not.
	Keep time.Duration
	// Fingerprint, of at most 64 bytes, says what is asked for under the key. If it
	// and that of the record are not empty and differ, the state is StateMismatch.
	Fingerprint []byte
	// Existing claims only keys that are known; others are StateAbsent.
	Existing bool
}

// Claim is one holding of a key. The zero Claim is none.
type Claim struct {
	Key Key
	// Token fences: it rises with every claim of the key. Hand it to the system
	// where the effect happens, if that can refuse a token lower than the highest
	// it has seen. It is about the time in microseconds, so it rises even after a
	// store has lost its data.
	Token int64
	// Attempt counts the claims of the key while its record is kept, from 1. Above
	// 1 an earlier holder has failed, or has vanished and may have taken effect.
	Attempt int
}

// Record is what Store.Claim found.
type Record struct {
	State State
	// Claim is set with StateClaimed.
	Claim Claim
	// Remaining is set with StateHeld: until the holder's lease ends.
	Remaining time.Duration
	// Result is set with StateDone: what Complete was given. It may be kept and
	// changed.
	Result []byte
}

// State is the answer of Store.Claim.
type State int

// The states. Their order is that in which they are decided.
const (
	// StateAbsent means that the key is not known and was not to be claimed anew.
	StateAbsent State = iota + 1
	// StateMismatch means that the key is known with another fingerprint.
	StateMismatch
	// StateDone means that the operation was completed.
	StateDone
	// StateHeld means that somebody else has claimed it and his lease has not ended.
	StateHeld
	// StateClaimed means that it is the caller's now.
	StateClaimed
)

var stateNames = map[State]string{
	StateAbsent: "absent", StateMismatch: "mismatch", StateDone: "done", StateHeld: "held", StateClaimed: "claimed",
}

// String returns the state's name, such as "done".
func (s State) String() string {
	if name, ok := stateNames[s]; ok {
		return name
	}
	return "unknown"
}

const maxFingerprint = 64

// Check reports what is wrong with the request, for stores: an empty key, or
// a duration or fingerprint out of range. Such errors are permanent.
func (r ClaimRequest) Check() error {
	if err := r.Key.check(); err != nil {
		return err
	}
	switch {
	case r.Lease < time.Millisecond:
		return refused(r.Key, fmt.Errorf("a lease of %v is too short: use a millisecond or more", r.Lease))
	case r.Keep <= 0:
		return refused(r.Key, fmt.Errorf("a record can't be kept for %v: use a positive time", r.Keep))
	case len(r.Fingerprint) > maxFingerprint:
		return refused(r.Key, fmt.Errorf("the fingerprint has %d bytes, the limit is %d: use a hash", len(r.Fingerprint), maxFingerprint))
	}
	return nil
}

// checkClaim is Check, and the end of ctx.
func checkClaim(ctx context.Context, r ClaimRequest) error {
	if ctx.Err() != nil {
		return fmt.Errorf("idempotency: claim %s: %w", r.Key, context.Cause(ctx))
	}
	return r.Check()
}
