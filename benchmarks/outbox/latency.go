package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/outbox"
)

const (
	every    = 10 * time.Millisecond // 100 transactions a second
	patience = 15 * time.Second
)

// path is a way from commit to publish.
type path struct {
	name  string
	start func(published func(id string)) (stop func() error, err error)
	// write is a transaction with an event; committing is called before its COMMIT.
	write func(committing func(id string)) error
}

// clock measures from commit to publish.
type clock struct {
	mu    sync.Mutex
	began map[string]time.Time
	took  []time.Duration
	want  int
	done  chan struct{}
}

func (c *clock) committing(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began[id] = time.Now()
}

func (c *clock) published(id string) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	began, ok := c.began[id]
	if !ok {
		return // published again
	}
	delete(c.began, id)
	if c.took = append(c.took, now.Sub(began)); len(c.took) == c.want {
		close(c.done)
	}
}

// sorted returns how long events took, but for the first ones.
func (c *clock) sorted() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(slices.Values(c.took[min(warming, len(c.took)):]))
}

// measure returns how long events took, in rising order.
func (b *bench) measure(p path, beside func() (end func(), err error)) ([]time.Duration, error) {
	if err := b.rest(); err != nil {
		return nil, err
	}
	c := &clock{began: map[string]time.Time{}, want: b.latencies + warming, done: make(chan struct{})}
	stop, err := p.start(c.published)
	if err != nil {
		return nil, err
	}
	if beside != nil {
		end, err := beside()
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		defer end()
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for range c.want {
		<-tick.C
		if err := p.write(c.committing); err != nil {
			return nil, errors.Join(err, stop())
		}
	}
	select {
	case <-c.done:
	case <-time.After(patience):
		err = errors.New("not all events were published")
	}
	return c.sorted(), errors.Join(err, stop())
}

// warming is how many events go first and do not count: connections, plans.
const warming = 50

func (b *bench) latencyTables() error {
	title := b.name + ": from commit to publish, 100 transactions a second"
	if err := b.latencyTable(title, b.paths(), nil); err != nil || b.dialect == outbox.SQLite { // which has one writer
		return err
	}
	return b.latencyTable(title+", a transaction of 3 s always open elsewhere", b.paths(), b.writer)
}

// latencyTable prints medians over rounds. The first path is what the ratio of
// p99 refers to.
func (b *bench) latencyTable(title string, paths []path, beside func() (func(), error)) error {
	if !b.wanted(title) {
		return nil
	}
	chosen, err := regexp.Compile(b.variants)
	if err != nil {
		return err
	}
	first := paths[0].name
	paths = slices.DeleteFunc(paths, func(p path) bool { return p.name != first && !chosen.MatchString(p.name) })
	all := make([][][]time.Duration, len(paths))
	for round := range b.rounds {
		for k := range paths {
			i := (k + round) % len(paths)
			took, err := b.measure(paths[i], beside)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", title, paths[i].name, err)
			}
			all[i] = append(all[i], took)
		}
	}
	fmt.Printf("\n### %s\n\n| | p50 ms | p99 ms (min-max) | longest ms | p99, ratio |\n|---|---|---|---|---|\n", title)
	for i, p := range paths {
		var p50, p99, longest, ratio []float64
		for r, took := range all[i] {
			p50, p99 = append(p50, at(took, 50)), append(p99, at(took, 99))
			longest, ratio = append(longest, at(took, 100)), append(ratio, at(took, 99)/at(all[0][r], 99))
		}
		fmt.Printf("| %s | %.2f | %.2f (%.2f-%.2f) | %.1f | %s |\n", p.name, rounds.Median(p50), rounds.Median(p99), slices.Min(p99), slices.Max(p99), slices.Max(longest), rounds.Ratio(rounds.Median(ratio)))
	}
	return nil
}

// at is a percentile in milliseconds.
func at(sorted []time.Duration, percent int) float64 {
	i := min(len(sorted)*percent/100, len(sorted)-1)
	return float64(sorted[i].Microseconds()) / 1000
}
