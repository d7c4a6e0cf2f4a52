package storetest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/idempotency"
)

const (
	racers = 8
	rounds = 25
)

// oneHolder has several callers take and give back one key.
func oneHolder(s *suite) {
	var inside atomic.Int32
	var last atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, racers)
	for range racers {
		store := s.open()
		wg.Go(func() {
			for range rounds {
				if err := s.take(store, &inside, &last); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		s.broken("%v", err)
	}
	if c := s.claim(s.open(), "k"); c.Attempt != racers*rounds+1 {
		s.broken("after %d claims comes attempt %d", racers*rounds, c.Attempt)
	}
}

// take claims the key as often as needed, and gives it back.
func (s *suite) take(store idempotency.Store, inside *atomic.Int32, last *atomic.Int64) error {
	deadline := time.Now().Add(patience)
	for {
		r, err := store.Claim(s.Context(), request("k", long))
		switch {
		case err != nil:
			return err
		case r.State == idempotency.StateClaimed:
			return s.inside(store, r.Claim, inside, last)
		case r.State != idempotency.StateHeld:
			return fmt.Errorf("the state is %v", r.State)
		case time.Now().After(deadline):
			return fmt.Errorf("the key was held by others for %v", patience)
		}
	}
}

func (s *suite) inside(store idempotency.Store, c idempotency.Claim, inside *atomic.Int32, last *atomic.Int64) error {
	if n := inside.Add(1); n != 1 {
		return fmt.Errorf("%d callers hold the key at once", n)
	}
	if before := last.Swap(c.Token); before >= c.Token {
		return fmt.Errorf("token %d came after %d", c.Token, before)
	}
	inside.Add(-1)
	return store.Release(s.Context(), c)
}
