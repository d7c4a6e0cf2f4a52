// Command resilience measures what policies cost calls that go well, beside
// what one would write by hand and beside other libraries: all in one run,
// interleaved, on one machine.
//
//	go run ./resilience -rounds 7
//	go run ./resilience -only breaker -cpuprofile cpu.prof
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"
)

func main() {
	n := flag.Int("rounds", 7, "`N` rounds, of which the median counts")
	each := flag.Duration("sample", 10*time.Millisecond, "how `LONG` a variant is measured in each round")
	only := flag.String("only", "", "run only groups whose title, or variants whose name, has this `TEXT`")
	profile := flag.String("cpuprofile", "", "write a profile to this `FILE`")
	flag.Parse()
	if err := run(*n, *each, *only, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "resilience:", err)
		os.Exit(1)
	}
}

func run(n int, each time.Duration, only, profile string) (err error) {
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return errors.Join(err, f.Close())
		}
		defer func() {
			pprof.StopCPUProfile()
			err = errors.Join(err, f.Close())
		}()
	}
	runtime.GOMAXPROCS(workers)
	all := groups()
	for i := range all {
		all[i] = all[i].only(only)
	}
	return compare(all, n, each)
}

// only leaves out variants, but what the others are measured by.
func (g group) only(text string) group {
	if strings.Contains(g.title, text) {
		return g
	}
	var left []variant
	for i, v := range g.variants {
		if i > 0 && strings.Contains(v.name, text) {
			left = append(left, v)
		}
	}
	if left != nil {
		left = append([]variant{g.variants[0]}, left...)
	}
	g.variants = left
	return g
}
