package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
)

// workers is how many goroutines there are where calls contend.
const workers = 2

// compare measures all variants in each round, by one goroutine and by several,
// and prints a Markdown table.
func compare(groups []group, n int, each time.Duration) error {
	t := rounds.Table{Title: "resilience", Warm: true}
	add := func(g group, v variant) {
		t.Variants = append(t.Variants, measured(g.title+", "+v.name, v, 1, each), measured(g.title+", "+v.name, v, workers, each))
	}
	for i, g := range groups {
		if g.bare.name == "" {
			groups[i].bare = bareCall
		}
		if len(g.variants) > 0 {
			add(g, groups[i].bare)
		}
		for _, v := range g.variants {
			add(g, v)
		}
	}
	samples, err := t.Measure(n)
	if err != nil {
		return err
	}
	fmt.Printf("| | ns | added ns | %d goroutines ns | allocations | time, ratio |\n|---|---|---|---|---|---|\n", workers)
	for _, g := range groups {
		if len(g.variants) > 0 {
			samples = g.print(samples)
		}
	}
	return nil
}

// print writes the group's rows and returns the samples that are left.
func (g group) print(samples [][]rounds.Sample) [][]rounds.Sample {
	bare, optimum := times(samples[0]), times(samples[2])
	fmt.Printf("| **%s** (%s) | %s | | %s | %s | |\n", g.title, g.bare.name, spread(bare), spread(times(samples[1])), allocations(samples[0]))
	for i, v := range g.variants {
		alone, together := samples[2*i+2], samples[2*i+3]
		t := times(alone)
		ratio := ""
		if i > 0 {
			ratios := by(t, optimum, func(a, b float64) float64 { return a / b })
			slices.Sort(ratios)
			ratio = fmt.Sprintf("%s [%s..%s]", rounds.Ratio(rounds.Median(ratios)), rounds.Ratio(ratios[0]), rounds.Ratio(ratios[len(ratios)-1]))
		}
		added := rounds.Median(by(t, bare, func(a, b float64) float64 { return a - b }))
		name := strings.Replace(v.name, "millrace", "**millrace**", 1)
		fmt.Printf("| %s | %s | %s | %s | %s | %s |\n", name, spread(t), nanos(added), spread(times(together)), allocations(alone), ratio)
	}
	return samples[2+2*len(g.variants):]
}

// times returns nanoseconds per call, by round.
func times(samples []rounds.Sample) []float64 {
	all := make([]float64, len(samples))
	for i, s := range samples {
		all[i] = float64(s.Took) / float64(s.N)
	}
	return all
}

func allocations(samples []rounds.Sample) string {
	all := make([]float64, len(samples))
	for i, s := range samples {
		all[i] = s.Allocs
	}
	return fmt.Sprintf("%.0f", rounds.Median(all))
}

// by combines two figures of each round.
func by(a, b []float64, f func(a, b float64) float64) []float64 {
	all := make([]float64, len(a))
	for i := range a {
		all[i] = f(a[i], b[i])
	}
	return all
}

// spread writes the median and the extremes.
func spread(values []float64) string {
	sorted := slices.Sorted(slices.Values(values))
	return fmt.Sprintf("%s [%s..%s]", nanos(rounds.Median(sorted)), nanos(sorted[0]), nanos(sorted[len(sorted)-1]))
}

// nanos writes nanoseconds with as many digits as mean something.
func nanos(x float64) string {
	if x < 100 {
		return fmt.Sprintf("%.1f", x)
	}
	return rounds.Thousands(int(math.Round(x)))
}

// measured is a variant as a number of goroutines call it, as often as takes
// about so long.
func measured(name string, v variant, goroutines int, long time.Duration) rounds.Variant {
	calls := 0
	return rounds.Variant{
		Name: name,
		Prepare: func() error {
			for n := 1000; calls == 0; n *= 2 {
				took, err := repeat(v, goroutines, n)
				if err != nil {
					return err
				}
				if took > long/4 {
					calls = max(1000, int(float64(n)*float64(long)/float64(took)))
				}
			}
			return nil
		},
		Run: func() (rounds.Sample, error) {
			took, err := repeat(v, goroutines, calls)
			return rounds.Sample{N: calls * goroutines, Took: took}, err
		},
	}
}

// repeat lets each goroutine make n calls and returns how long all took.
func repeat(v variant, goroutines, n int) (time.Duration, error) {
	callers := make([]func() error, goroutines)
	for i := range callers {
		callers[i] = v.caller()
	}
	errs := make([]error, goroutines)
	var wg sync.WaitGroup
	start := time.Now()
	for i, call := range callers[1:] {
		wg.Go(func() { errs[i+1] = loop(call, n) })
	}
	errs[0] = loop(callers[0], n)
	wg.Wait()
	took := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return took, nil
}

func loop(call func() error, n int) error {
	for range n {
		if err := call(); err != nil {
			return err
		}
	}
	return nil
}
