package main

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// variant is one way of doing what its siblings do as well. run does the n-th
// operation of a worker; one operation may handle several messages.
type variant struct {
	name  string
	run   func(worker, n int) error
	batch int // messages of one operation; 0 is 1
}

// sample is what one message cost in one round.
type sample struct {
	each   time.Duration
	allocs float64
}

// rounds runs all variants once per round, one after the other, so that what
// the machine does meanwhile hits all of them, and prints a Markdown table of
// medians. Ratios are of time to the first variant, medians of those within each
// round.
func rounds(title string, n, workers, messages int, variants []variant, between func() error) error {
	all := make([][]sample, len(variants))
	for round := range n + 1 { // the first warms up
		for i, v := range variants {
			if err := between(); err != nil {
				return fmt.Errorf("%s: %w", title, err)
			}
			s, err := measure(workers, messages, v)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", title, v.name, err)
			}
			if round > 0 {
				all[i] = append(all[i], s)
			}
		}
	}
	fmt.Printf("\n### %s\n\n| | µs a message (min-max) | time, ratio | allocations |\n|---|---|---|---|\n", title)
	for i, v := range variants {
		var each []time.Duration
		var ratios, allocs []float64
		for r, s := range all[i] {
			each = append(each, s.each)
			ratios = append(ratios, float64(s.each)/float64(all[0][r].each))
			allocs = append(allocs, s.allocs)
		}
		slices.Sort(each)
		fmt.Printf("| %s | %s (%s-%s) | %.2f | %.1f |\n", v.name, micros(each[n/2]), micros(each[0]), micros(each[n-1]), median(ratios), median(allocs))
	}
	return nil
}

func measure(workers, messages int, v variant) (sample, error) {
	batch := max(1, v.batch)
	each := max(1, messages/workers/batch)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := 0; n < each && errs[w] == nil; n++ {
				errs[w] = v.run(w, n)
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	for _, err := range errs {
		if err != nil {
			return sample{}, err
		}
	}
	total := each * workers * batch
	return sample{took / time.Duration(total), float64(after.Mallocs-before.Mallocs) / float64(total)}, nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func micros(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Nanoseconds())/1000) }
