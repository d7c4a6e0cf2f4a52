package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// variant is one way of doing what its siblings do as well.
type variant struct {
	name string
	run  func() (sample, error)
}

// sample is what one run did and how long that took.
type sample struct {
	n    int
	took time.Duration
	note string

	allocs float64 // per operation
}

func (s sample) each() time.Duration { return s.took / time.Duration(s.n) }

// rounds runs all variants once per round, one after the other, so that what
// the machine does meanwhile hits all of them, and prints a Markdown table of
// medians. Ratios are medians of the ratios within each round; the first variant
// is what they refer to.
func rounds(title string, n int, variants []variant) error {
	all := make([][]sample, len(variants))
	for range n {
		for i, v := range variants {
			s, err := measure(v.run)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", title, v.name, err)
			}
			all[i] = append(all[i], s)
		}
	}
	fmt.Printf("\n### %s\n\n| | per second | µs each (min-max) | ratio | allocations | |\n|---|---|---|---|---|---|\n", title)
	for i, v := range variants {
		each := slices.SortedFunc(slices.Values(all[i]), func(a, b sample) int { return int(a.each() - b.each()) })
		var ratios, allocs []float64
		for r := range n {
			ratios = append(ratios, float64(all[0][r].each())/float64(all[i][r].each()))
			allocs = append(allocs, all[i][r].allocs)
		}
		middle := each[n/2]
		fmt.Printf("| %s | %s | %s (%s-%s) | %.2f | %.1f | %s |\n", v.name, thousands(int(time.Second/max(middle.each(), 1))),
			micros(middle.each()), micros(each[0].each()), micros(each[n-1].each()), median(ratios), median(allocs), middle.note)
	}
	return nil
}

func measure(run func() (sample, error)) (sample, error) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := run()
	if err != nil {
		return s, err
	}
	runtime.ReadMemStats(&after)
	s.allocs = float64(after.Mallocs-before.Mallocs) / float64(s.n)
	return s, nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func micros(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d.Nanoseconds())/1000)
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	var b strings.Builder
	for i, digit := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}
