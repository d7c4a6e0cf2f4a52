package idempotency

import (
	"bytes"
	"time"
)

// phase is the stored state of a record. The numbers are part of the format.
type phase int

const (
	phaseClaimed phase = 1
	phaseFree    phase = 2
	phaseDone    phase = 3
)

// record is what the memory and the SQL store keep of a key. Times are Unix
// microseconds of the store's clock.
type record struct {
	phase       phase
	token       int64
	attempt     int
	fingerprint []byte
	until       int64 // the end of the lease
	expires     int64 // never before until
	result      []byte
}

// found is the answer of Claim for a record, nil if there is none.
func (r *record) found(now int64, q ClaimRequest) State {
	switch {
	case r == nil || r.expires <= now:
		if q.Existing {
			return StateAbsent
		}
		return StateClaimed
	case len(q.Fingerprint) > 0 && len(r.fingerprint) > 0 && !bytes.Equal(q.Fingerprint, r.fingerprint):
		return StateMismatch
	case r.phase == phaseDone:
		return StateDone
	case r.phase == phaseClaimed && r.until > now:
		return StateHeld
	}
	return StateClaimed
}

// claimed is the record after a claim of r, which may be nil.
func (r *record) claimed(now int64, q ClaimRequest) record {
	next := record{phase: phaseClaimed, token: now, attempt: 1, fingerprint: bytes.Clone(q.Fingerprint)}
	if r != nil {
		next.token = max(now, r.token+1)
	}
	if r != nil && r.expires > now {
		next.attempt = r.attempt + 1
		if len(q.Fingerprint) == 0 {
			next.fingerprint = r.fingerprint
		}
	}
	next.until = now + q.Lease.Microseconds()
	next.expires = next.until + q.Keep.Microseconds()
	return next
}

// answer is the Record of a state other than StateClaimed.
func (r *record) answer(s State, now int64) Record {
	out := Record{State: s}
	switch s {
	case StateHeld:
		out.Remaining = time.Duration(r.until-now) * time.Microsecond
	case StateDone:
		out.Result = bytes.Clone(r.result)
	}
	return out
}
