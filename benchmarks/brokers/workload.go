package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
)

// system is one way to use a broker. A topic is used by one run only.
type system struct {
	name string
	// publisher returns a function that sends events with the given keys and
	// returns when all of them are accepted.
	publisher func(topic string) (publish func(keys []string) error, stop func(), err error)
	// consumer joins a group and has handle called for each event.
	consumer func(topic, group string, concurrency int, handle func(payload []byte)) (stop func(), err error)
}

// payload is 1 KiB that compresses to about half, as JSON does. A batch of it
// compresses to far less, for it holds the same text again and again.
var payload = text(rand.New(rand.NewPCG(1, 2)))

// distinct are payloads that differ, so that a batch of them compresses no better
// than each alone.
var distinct = sync.OnceValue(func() [][]byte {
	dice := rand.New(rand.NewPCG(3, 4))
	all := make([][]byte, 1000)
	for i := range all {
		all[i] = text(dice)
	}
	return all
})

func text(dice *rand.Rand) []byte {
	text := make([]byte, 1024)
	for i := range text {
		text[i] = "0123456789abcdef"[dice.IntN(16)]
	}
	return text
}

// keys returns n keys of 64.
func keys(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint("key-", i%64)
	}
	return all
}

// publishing measures n events sent by callers in batches.
func publishing(s system, topic func() string, n, batch, callers int) func() (rounds.Sample, error) {
	return func() (rounds.Sample, error) {
		publish, stop, err := s.publisher(topic())
		if err != nil {
			return rounds.Sample{}, err
		}
		defer stop()
		if err := publish(keys(batch)); err != nil { // connections, metadata
			return rounds.Sample{}, err
		}
		var wg sync.WaitGroup
		errs := make([]error, callers)
		start := time.Now()
		for c := range callers {
			wg.Go(func() {
				mine := slices.Repeat(keys(64)[c%64:c%64+1], batch)
				if batch > 1 {
					mine = keys(batch)
				}
				for range n / callers / batch {
					if errs[c] = publish(mine); errs[c] != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		return rounds.Sample{N: n / callers / batch * batch * callers, Took: time.Since(start)}, errors.Join(errs...)
	}
}

// consuming measures the last three quarters of n events: what clients fetch
// ahead while they start would flatter whoever fetches most.
func consuming(s system, filler system, topic func() string, n, concurrency int, work time.Duration) func() (rounds.Sample, error) {
	return func() (rounds.Sample, error) {
		t := topic()
		if err := fill(s, filler, t, n); err != nil {
			return rounds.Sample{}, err
		}
		var handled atomic.Int64 // no lock, which only concurrent handlers would wait for
		first, done := make(chan time.Time, 1), make(chan time.Time, 1)
		stop, err := s.consumer(t, t, concurrency, func([]byte) {
			at := int(handled.Add(1))
			if at == n/4 {
				first <- time.Now()
			}
			if work > 0 {
				<-time.After(work)
			}
			if at == n {
				done <- time.Now()
			}
		})
		if err != nil {
			return rounds.Sample{}, err
		}
		defer stop()
		select {
		case end := <-done:
			return rounds.Sample{N: n - n/4, Took: end.Sub(<-first)}, nil
		case <-time.After(2 * time.Minute):
			return rounds.Sample{}, fmt.Errorf("%d of %d events came", handled.Load(), n)
		}
	}
}

// fill makes the group exist, so that queues are there, and then n events.
func fill(s, filler system, topic string, n int) error {
	stop, err := s.consumer(topic, topic, 1, func([]byte) {})
	if err != nil {
		return err
	}
	stop()
	publish, stopPublisher, err := filler.publisher(topic)
	if err != nil {
		return err
	}
	defer stopPublisher()
	for sent := 0; sent < n; sent += 1000 {
		if err := publish(keys(min(1000, n-sent))); err != nil {
			return err
		}
	}
	return nil
}

// latency measures the time from publishing to handling, one event every few
// milliseconds.
func latency(s system, topic func() string, n int) func() (rounds.Sample, error) {
	return func() (rounds.Sample, error) {
		t := topic()
		handled := make(chan struct{}, n)
		stop, err := s.consumer(t, t, 16, func([]byte) { handled <- struct{}{} })
		if err != nil {
			return rounds.Sample{}, err
		}
		defer stop()
		publish, stopPublisher, err := s.publisher(t)
		if err != nil {
			return rounds.Sample{}, err
		}
		defer stopPublisher()
		var took []time.Duration
		for i := range n + 10 {
			start := time.Now()
			if err := publish(keys(1)); err != nil {
				return rounds.Sample{}, err
			}
			select {
			case <-handled:
			case <-time.After(time.Minute):
				return rounds.Sample{}, errors.New("an event did not come")
			}
			if i >= 10 {
				took = append(took, time.Since(start))
			}
			<-time.After(3 * time.Millisecond)
		}
		slices.Sort(took)
		total := time.Duration(0)
		for _, d := range took {
			total += d
		}
		note := fmt.Sprintf("p50 %v, p99 %v", took[n/2].Round(10*time.Microsecond), took[n*99/100].Round(10*time.Microsecond))
		return rounds.Sample{N: n, Took: total, Note: note}, nil
	}
}
