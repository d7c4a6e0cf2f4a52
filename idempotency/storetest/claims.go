package storetest

import (
	"time"

	"github.com/millrace-go/millrace/idempotency"
)

func claimRenewComplete(s *suite) {
	store, other := s.open(), s.open()
	c := s.claim(store, "k")
	if c.Attempt != 1 {
		s.broken("the first attempt has number %d", c.Attempt)
	}
	held := s.ask(other, request("k", long), idempotency.StateHeld)
	if held.Remaining <= 0 || held.Remaining > long {
		s.broken("the rest of a lease of %v is %v", long, held.Remaining)
	}
	s.ok(store.Renew(s.Context(), c, long))
	s.ask(other, request("k", long), idempotency.StateHeld)
	s.ok(store.Complete(s.Context(), c, []byte("result"), time.Hour))
	for _, from := range []idempotency.Store{store, other} {
		if r := s.ask(from, request("k", long), idempotency.StateDone); string(r.Result) != "result" {
			s.broken("the result is %q", r.Result)
		}
	}
	s.lost("Renew of a completed claim", store.Renew(s.Context(), c, long))
	s.lost("Release of a completed claim", store.Release(s.Context(), c))
	s.ask(other, request("k", long), idempotency.StateDone)
}

func release(s *suite) {
	store, other := s.open(), s.open()
	q := request("k", long)
	q.Fingerprint = []byte("a")
	c := s.ask(store, q, idempotency.StateClaimed).Claim
	s.ok(store.Release(s.Context(), c))
	s.lost("Renew of a released claim", store.Renew(s.Context(), c, long))
	s.lost("Complete of a released claim", store.Complete(s.Context(), c, nil, time.Hour))
	different := q
	different.Fingerprint = []byte("b")
	s.ask(other, different, idempotency.StateMismatch)
	q.Existing = true
	again := s.ask(other, q, idempotency.StateClaimed).Claim
	if again.Attempt != 2 || again.Token <= c.Token {
		s.broken("after %+v came %+v", c, again)
	}
}

func leaseEnds(s *suite) {
	store, other := s.open(), s.open()
	begin := time.Now()
	c := s.ask(store, request("k", short), idempotency.StateClaimed).Claim
	next := s.waitFor(other, request("k", long), idempotency.StateHeld, idempotency.StateClaimed).Claim
	// A millisecond less, for clocks that count in them.
	if took := time.Since(begin); took < short-time.Millisecond {
		s.broken("a lease of %v ended after %v", short, took)
	}
	if next.Token <= c.Token || next.Attempt != 2 {
		s.broken("after %+v came %+v", c, next)
	}
}

func renewedLease(s *suite) {
	store, other := s.open(), s.open()
	c := s.ask(store, request("k", short), idempotency.StateClaimed).Claim
	var renewed time.Time
	for range 3 {
		renewed = time.Now()
		s.ok(store.Renew(s.Context(), c, 3*short))
	}
	s.waitFor(other, request("k", long), idempotency.StateHeld, idempotency.StateClaimed)
	if took := time.Since(renewed); took < 3*short-time.Millisecond {
		s.broken("a lease renewed for %v ended after %v", 3*short, took)
	}
}

// The trap's name: claims without a fencing token.
func fencing(s *suite) {
	store, other := s.open(), s.open()
	old := s.ask(store, request("k", short), idempotency.StateClaimed).Claim
	now := s.waitFor(other, request("k", long), idempotency.StateHeld, idempotency.StateClaimed).Claim
	s.lost("Renew by the overtaken", store.Renew(s.Context(), old, long))
	s.lost("Release by the overtaken", store.Release(s.Context(), old))
	s.lost("Complete by the overtaken", store.Complete(s.Context(), old, []byte("old"), time.Hour))
	s.ask(store, request("k", long), idempotency.StateHeld)
	s.ok(other.Complete(s.Context(), now, []byte("new"), time.Hour))
	s.lost("Complete by the overtaken, later", store.Complete(s.Context(), old, []byte("old"), time.Hour))
	if r := s.ask(store, request("k", long), idempotency.StateDone); string(r.Result) != "new" {
		s.broken("the result is %q", r.Result)
	}
	made := now
	made.Key, made.Token = key("never claimed"), 1
	s.lost("Complete of a key that nobody claimed", store.Complete(s.Context(), made, nil, time.Hour))
}

func endedLease(s *suite) {
	store := s.open()
	for id, use := range map[string]func(idempotency.Claim) error{
		"renew":    func(c idempotency.Claim) error { return store.Renew(s.Context(), c, long) },
		"complete": func(c idempotency.Claim) error { return store.Complete(s.Context(), c, nil, time.Hour) },
		"release":  func(c idempotency.Claim) error { return store.Release(s.Context(), c) },
	} {
		c := s.ask(store, request(id, short), idempotency.StateClaimed).Claim
		// Another key, claimed later for as long, shows that the time is over.
		s.ask(store, request(id+" clock", short), idempotency.StateClaimed)
		s.waitFor(store, request(id+" clock", short), idempotency.StateHeld, idempotency.StateClaimed)
		if err := use(c); err != nil {
			s.broken("%s: %v", id, err)
		}
	}
	s.ask(store, request("renew", long), idempotency.StateHeld)
	s.ask(store, request("complete", long), idempotency.StateDone)
	s.ask(store, request("release", long), idempotency.StateClaimed)
}

func repeatedCalls(s *suite) {
	store := s.open()
	c := s.claim(store, "k")
	for range 3 {
		s.ok(store.Renew(s.Context(), c, long))
	}
	s.ok(store.Complete(s.Context(), c, []byte("first"), time.Hour))
	s.ok(store.Complete(s.Context(), c, []byte("second"), time.Hour))
	if r := s.ask(store, request("k", long), idempotency.StateDone); string(r.Result) != "first" {
		s.broken("a repeated Complete changed the result to %q", r.Result)
	}
	c = s.claim(store, "l")
	s.ok(store.Release(s.Context(), c))
	s.ok(store.Release(s.Context(), c))
	next := s.claim(store, "l")
	s.lost("Release of an earlier claim", store.Release(s.Context(), c))
	s.ok(store.Renew(s.Context(), next, long))
}

func tokenRises(s *suite) {
	store, other := s.open(), s.open()
	var last int64
	for i := range 20 {
		c := s.claim([]idempotency.Store{store, other}[i%2], "k")
		if c.Token <= last || c.Attempt != i+1 {
			s.broken("claim %d has token %d after %d, and attempt %d", i+1, c.Token, last, c.Attempt)
		}
		last = c.Token
		s.ok(store.Release(s.Context(), c))
	}
	q := request("brief", short/2)
	q.Keep, q.Fingerprint = short/2, []byte("f")
	last = s.ask(store, q, idempotency.StateClaimed).Claim.Token
	s.waitForgotten(store, "brief")
	s.pruneAll(store)
	if c := s.claim(other, "brief"); c.Token <= last || c.Attempt != 1 {
		s.broken("after its record was forgotten with token %d the key has claim %+v", last, c)
	}
}
