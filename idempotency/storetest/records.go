package storetest

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
)

func fingerprint(s *suite) {
	store := s.open()
	a, b, none := request("k", long), request("k", long), request("k", long)
	a.Fingerprint, b.Fingerprint = []byte("a"), bytes.Repeat([]byte{0, 0xff}, 32)
	c := s.ask(store, a, idempotency.StateClaimed).Claim
	s.ask(store, b, idempotency.StateMismatch)
	s.ask(store, a, idempotency.StateHeld)
	s.ask(store, none, idempotency.StateHeld)
	s.ok(store.Complete(s.Context(), c, nil, time.Hour))
	s.ask(store, b, idempotency.StateMismatch)
	s.ask(store, a, idempotency.StateDone)
	s.ask(store, none, idempotency.StateDone)

	c = s.claim(store, "bare")
	b.Key, a.Key, none.Key = key("bare"), key("bare"), key("bare")
	s.ok(store.Release(s.Context(), c))
	c = s.ask(store, b, idempotency.StateClaimed).Claim
	s.ok(store.Release(s.Context(), c))
	c = s.ask(store, none, idempotency.StateClaimed).Claim
	s.ok(store.Release(s.Context(), c))
	s.ask(store, a, idempotency.StateMismatch)

	brief := request("abandoned", short)
	brief.Fingerprint = a.Fingerprint
	s.ask(store, brief, idempotency.StateClaimed)
	b.Key, none.Key = brief.Key, brief.Key
	s.ask(store, b, idempotency.StateMismatch)
	s.waitFor(store, none, idempotency.StateHeld, idempotency.StateClaimed)
	s.ask(store, b, idempotency.StateMismatch)
}

func existingOnly(s *suite) {
	store := s.open()
	q := request("k", long)
	q.Existing = true
	s.ask(store, q, idempotency.StateAbsent)
	s.ask(store, q, idempotency.StateAbsent)
	c := s.claim(store, "k")
	s.ask(store, q, idempotency.StateHeld)
	s.ok(store.Complete(s.Context(), c, nil, time.Hour))
	s.ask(store, q, idempotency.StateDone)
}

func forgotten(s *suite) {
	store := s.open()
	c := s.claim(store, "done")
	begin := time.Now()
	s.ok(store.Complete(s.Context(), c, []byte("x"), short))
	q := request("done", long)
	q.Existing = true
	s.waitFor(store, q, idempotency.StateDone, idempotency.StateAbsent)
	if took := time.Since(begin); took < short-3*time.Millisecond { // clocks of milliseconds, rounded at both ends
		s.broken("a result to be kept for %v was forgotten after %v", short, took)
	}
	if again := s.claim(store, "done"); again.Token <= c.Token || again.Attempt != 1 {
		s.broken("after %+v was forgotten came %+v", c, again)
	}
}

func heldIsKept(s *suite) {
	store := s.open()
	q := request("k", short)
	q.Keep = time.Millisecond
	c := s.ask(store, q, idempotency.StateClaimed).Claim
	s.ok(store.Renew(s.Context(), c, long))
	s.ask(store, request("clock", 2*short), idempotency.StateClaimed)
	s.waitFor(store, request("clock", short), idempotency.StateHeld, idempotency.StateClaimed)
	s.pruneAll(store)
	s.ask(store, request("k", long), idempotency.StateHeld)
	s.ok(store.Renew(s.Context(), c, long))
}

// pruner is what most stores are: those that don't expire records by themselves.
type pruner interface {
	Prune(ctx context.Context) (int64, error)
}

func (s *suite) pruneAll(store idempotency.Store) (n int64) {
	if p, ok := store.(pruner); ok {
		var err error
		n, err = p.Prune(s.Context())
		s.ok(err)
	}
	return n
}

func (s *suite) waitForgotten(store idempotency.Store, id string) {
	s.Helper()
	q := request(id, long)
	q.Existing = true
	q.Fingerprint = []byte("no claim has this")
	s.waitFor(store, q, idempotency.StateMismatch, idempotency.StateAbsent)
}

func prune(s *suite) {
	store := s.open()
	if _, ok := store.(pruner); !ok {
		s.Skip("the store has no Prune")
	}
	const old = 12
	for i := range old {
		q := request("old "+strings.Repeat("x", i), short/2)
		q.Keep, q.Fingerprint = short/2, []byte("f")
		c := s.ask(store, q, idempotency.StateClaimed).Claim
		switch i % 3 { // the others are abandoned
		case 1:
			s.ok(store.Complete(s.Context(), c, nil, short/2))
		case 2:
			s.ok(store.Release(s.Context(), c))
		}
	}
	held := s.claim(store, "held")
	s.ok(store.Complete(s.Context(), s.claim(store, "done"), nil, time.Hour))
	s.waitForgotten(store, "old "+strings.Repeat("x", old-3))
	for i := range old {
		s.waitForgotten(store, "old "+strings.Repeat("x", i))
	}
	if n := s.pruneAll(store); n != old {
		s.broken("%d records of %d were deleted", n, old)
	}
	if n := s.pruneAll(store); n != 0 {
		s.broken("%d more records were deleted", n)
	}
	s.ok(store.Renew(s.Context(), held, long))
	s.ask(store, request("done", long), idempotency.StateDone)
}

func anyKey(s *suite) {
	store := s.open()
	huge := strings.Repeat("k", 20_000)
	keys := []idempotency.Key{
		{Scope: "ab", ID: "c"}, {Scope: "a", ID: "bc"}, {Scope: "A", ID: "bc"}, {Scope: "a", ID: "BC"}, {Scope: "a", ID: "bc "},
		{Scope: "a ", ID: "bc"}, {Scope: "ä", ID: "bc"}, {Scope: "a", ID: "bc\x00"}, {Scope: "a", ID: "\xff\xfe'\"\\;{}*"},
		{Scope: "a", ID: "straße"}, {Scope: "a", ID: "strasse"}, {Scope: "a", ID: "日本"},
		{Scope: "a", ID: huge}, {Scope: "a", ID: huge + "1"}, {Scope: "a", ID: huge + "2"}, {Scope: huge, ID: "a"},
	}
	for i, k := range keys {
		q := request("", long)
		q.Key = k
		c := s.ask(store, q, idempotency.StateClaimed).Claim
		s.ok(store.Complete(s.Context(), c, []byte{byte(i)}, time.Hour))
	}
	for i, k := range keys {
		q := request("", long)
		q.Key = k
		if r := s.ask(store, q, idempotency.StateDone); !bytes.Equal(r.Result, []byte{byte(i)}) {
			s.broken("key %d has the result of key %v", i, r.Result)
		}
	}
}

func anyResult(s *suite) {
	store := s.open()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i, want := range [][]byte{nil, {}, {0}, all, bytes.Repeat(all, 1024)} {
		id := strings.Repeat("r", i+1)
		given := bytes.Clone(want)
		s.ok(store.Complete(s.Context(), s.claim(store, id), given, time.Hour))
		clear(given)
		r := s.ask(store, request(id, long), idempotency.StateDone)
		if !bytes.Equal(r.Result, want) {
			s.broken("a result of %d bytes came back as another one of %d", len(want), len(r.Result))
		}
		clear(r.Result)
		if r = s.ask(store, request(id, long), idempotency.StateDone); !bytes.Equal(r.Result, want) {
			s.broken("the caller of Claim changed the stored result")
		}
	}
}

func badRequests(s *suite) {
	store := s.open()
	for name, change := range map[string]func(*idempotency.ClaimRequest){
		"no scope":             func(q *idempotency.ClaimRequest) { q.Key.Scope = "" },
		"no id":                func(q *idempotency.ClaimRequest) { q.Key.ID = "" },
		"no lease":             func(q *idempotency.ClaimRequest) { q.Lease = 0 },
		"negative lease":       func(q *idempotency.ClaimRequest) { q.Lease = -time.Second },
		"nothing kept":         func(q *idempotency.ClaimRequest) { q.Keep = 0 },
		"too long fingerprint": func(q *idempotency.ClaimRequest) { q.Fingerprint = make([]byte, 65) },
	} {
		q := request("k", long)
		change(&q)
		if _, err := store.Claim(s.Context(), q); !eventbus.IsPermanent(err) {
			s.broken("%s: the error is %v, want a permanent one", name, err)
		}
	}
	s.claim(store, "k")
}

func contextEnds(s *suite) {
	store := s.open()
	ended, cancel := context.WithCancel(s.Context())
	cancel()
	if _, err := store.Claim(ended, request("k", long)); err == nil {
		s.broken("Claim succeeded")
	}
	c := s.claim(store, "k")
	if c.Attempt != 1 {
		s.broken("the failed Claim counted")
	}
	for name, err := range map[string]error{
		"Renew":    store.Renew(ended, c, time.Nanosecond),
		"Complete": store.Complete(ended, c, nil, time.Hour),
		"Release":  store.Release(ended, c),
	} {
		if err == nil {
			s.broken("%s succeeded", name)
		}
	}
	s.ask(store, request("k", long), idempotency.StateHeld)
}
