// Package rounds compares ways of doing the same job on a noisy machine: all of
// them run once per round, one after the other, so that what the machine does
// meanwhile hits all, and what counts are medians and ratios within a round. The
// time that this process has had is told as well: on a busy machine it is the
// sturdier figure, but knows nothing of what a server did.
package rounds

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Variant is one way of doing what its siblings do as well.
type Variant struct {
	Name    string
	Prepare func() error // called before each run, not measured; may be nil
	Run     func() (Sample, error)
}

// Sample is what one run did and how long that took.
type Sample struct {
	N      int
	Took   time.Duration // 0: as long as Run did
	Note   string
	Allocs float64       // of the whole process while Run ran, per operation; set by the table
	CPU    time.Duration // likewise
}

// Each is the time of one operation.
func (s Sample) Each() time.Duration { return s.Took / time.Duration(max(1, s.N)) }

// Table compares variants of one job. The first is what ratios refer to.
type Table struct {
	Title    string
	Of       string // what one operation is, such as "event"
	Speed    bool   // ratios are of speed, not of time
	Split    int    // how many short rounds make one; 0 is 1
	Warm     bool   // a further round goes first and does not count
	Variants []Variant
	Compare  [][2]string // pairs of variants to tell in a sentence how much faster the first one is
}

// Run measures n rounds and prints a Markdown table.
func (t Table) Run(n int) error {
	all, err := t.Measure(n)
	if err == nil {
		t.print(all)
	}
	return err
}

// Measure returns the samples of n rounds, by variant and round.
func (t Table) Measure(n int) ([][]Sample, error) {
	all := make([][]Sample, len(t.Variants))
	n *= max(1, t.Split)
	warm := 0
	if t.Warm {
		warm = 1
	}
	for round := range n + warm {
		for k := range t.Variants {
			i := (k + round) % len(t.Variants) // so that none always follows the same one
			v := t.Variants[i]
			s, err := measure(v)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", t.Title, v.Name, err)
			}
			if round >= warm {
				all[i] = append(all[i], s)
			}
		}
	}
	return all, nil
}

func (t Table) print(all [][]Sample) {
	ratio := "time, ratio"
	if t.Speed {
		ratio = "speed, ratio"
	}
	fmt.Printf("\n### %s\n\n| | per second | µs per %s (min-max) | %s | CPU µs | allocations | |\n|---|---|---|---|---|---|---|\n", t.Title, t.Of, ratio)
	for i, v := range t.Variants {
		var ratios, allocs, busy []float64
		for r, s := range all[i] {
			x := float64(s.Each()) / float64(all[0][r].Each())
			if t.Speed {
				x = 1 / x
			}
			ratios, allocs, busy = append(ratios, x), append(allocs, s.Allocs), append(busy, float64(s.CPU))
		}
		each := slices.SortedFunc(slices.Values(all[i]), func(a, b Sample) int { return int(a.Each() - b.Each()) })
		middle := each[len(each)/2]
		fmt.Printf("| %s | %s | %s (%s-%s) | %s | %s | %.1f | %s |\n", v.Name, Thousands(int(time.Second/max(middle.Each(), 1))),
			Micros(middle.Each()), Micros(each[0].Each()), Micros(each[len(each)-1].Each()), Ratio(Median(ratios)), Micros(time.Duration(Median(busy))), Median(allocs), middle.Note)
	}
	for _, pair := range t.Compare {
		t.compare(all, pair[0], pair[1])
	}
}

func (t Table) compare(all [][]Sample, ours, theirs string) {
	index := func(name string) int {
		return slices.IndexFunc(t.Variants, func(v Variant) bool { return v.Name == name })
	}
	a, b := index(ours), index(theirs)
	if a < 0 || b < 0 {
		return
	}
	var times []float64
	for r := range all[a] {
		times = append(times, float64(all[b][r].Each())/float64(all[a][r].Each()))
	}
	fmt.Printf("\n%s: %s times the speed of %s.\n", ours, Ratio(Median(times)), theirs)
}

func measure(v Variant) (Sample, error) {
	if v.Prepare != nil {
		if err := v.Prepare(); err != nil {
			return Sample{}, err
		}
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	busy, start := cpu(), time.Now()
	s, err := v.Run()
	if err != nil {
		return s, err
	}
	if s.Took == 0 {
		s.Took = time.Since(start)
	}
	s.CPU = (cpu() - busy) / time.Duration(max(1, s.N))
	runtime.ReadMemStats(&after)
	s.Allocs = float64(after.Mallocs-before.Mallocs) / float64(max(1, s.N))
	return s, nil
}

// Median returns the middle of values, which it sorts.
func Median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// Micros writes a duration in microseconds.
func Micros(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d.Nanoseconds())/1000)
}

// Ratio writes a ratio with two decimals, or two digits if it is tiny.
func Ratio(x float64) string {
	if x < 0.095 {
		return strconv.FormatFloat(x, 'g', 2, 64)
	}
	return fmt.Sprintf("%.2f", x)
}

// Thousands writes a number with commas.
func Thousands(n int) string {
	s := strconv.Itoa(n)
	var b strings.Builder
	for i, digit := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}
