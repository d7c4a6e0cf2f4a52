// Package storetest is the conformance suite of idempotency.Store. It needs the
// standard library only.
package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/millrace-go/millrace/idempotency"
)

// Run checks that a store keeps the contract of idempotency.Store. open is called
// once per row for an empty store, and what it sets up should end with
// t.Cleanup; each call of the function that it returns gives another handle on
// the same data, as another process would have it, or the same store where there
// is no such thing.
//
// The rows run in a fixed order under stable names, so a failing one can be run
// alone: go test -run 'TestConformance/one_holder'. A failure prints the rule
// that was broken. Time is real; leases are some ten milliseconds long.
func Run(t *testing.T, open func(t *testing.T) func() idempotency.Store) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { r.run(&suite{T: t, why: r.why, open: open(t)}) })
	}
}

// row is one rule of the suite.
type row struct {
	name string
	why  string
	run  func(*suite)
}

// patience bounds every wait of the suite; a wait ends as soon as its condition
// holds.
const patience = 15 * time.Second

const (
	long  = time.Hour              // a lease that does not end
	short = 100 * time.Millisecond // a lease that is waited for
)

// suite is the state of one row.
type suite struct {
	*testing.T
	why  string
	open func() idempotency.Store
}

// broken ends the row.
func (s *suite) broken(format string, args ...any) {
	s.Helper()
	s.Fatalf(format+"\nrule: %s", append(args, s.why)...)
}

func key(id string) idempotency.Key { return idempotency.Key{Scope: "storetest", ID: id} }

func request(id string, lease time.Duration) idempotency.ClaimRequest {
	return idempotency.ClaimRequest{Key: key(id), Lease: lease, Keep: time.Hour}
}

// ask claims and demands an answer.
func (s *suite) ask(store idempotency.Store, q idempotency.ClaimRequest, want idempotency.State) idempotency.Record {
	s.Helper()
	r, err := store.Claim(s.Context(), q)
	if err != nil {
		s.broken("Claim %s: %v", q.Key, err)
	}
	if r.State != want {
		s.broken("Claim %s: the state is %v, want %v", q.Key, r.State, want)
	}
	if want != idempotency.StateClaimed {
		return r
	}
	if r.Claim.Key != q.Key || r.Claim.Token <= 0 || r.Claim.Attempt <= 0 {
		s.broken("Claim %s: the claim is %+v", q.Key, r.Claim)
	}
	return r
}

func (s *suite) claim(store idempotency.Store, id string) idempotency.Claim {
	s.Helper()
	return s.ask(store, request(id, long), idempotency.StateClaimed).Claim
}

func (s *suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.broken("%v", err)
	}
}

func (s *suite) lost(operation string, err error) {
	s.Helper()
	if !errors.Is(err, idempotency.ErrLost) {
		s.broken("%s: the error is %v, want ErrLost", operation, err)
	}
}

// waitFor asks until the state is want, and returns how long that took. Other
// states in between must be meanwhile.
func (s *suite) waitFor(store idempotency.Store, q idempotency.ClaimRequest, meanwhile, want idempotency.State) (r idempotency.Record) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := store.Claim(ctx, q)
		switch {
		case err != nil:
			s.broken("Claim %s: %v", q.Key, err)
		case r.State == want:
			return r
		case r.State != meanwhile:
			s.broken("Claim %s: the state is %v, want %v and then %v", q.Key, r.State, meanwhile, want)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.broken("Claim %s: the state was %v for %v, want %v", q.Key, r.State, patience, want)
		}
	}
}
