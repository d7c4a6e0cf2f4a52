// Command outbox measures the transactional outbox beside its peers (Watermill's
// forwarder on watermill-sql, River) and beside what one would write by hand: what
// an event costs its transaction, how fast a backlog drains, how long an event
// takes from commit to publish. All in one run, interleaved, on one machine.
//
//	go run ./outbox -dialect postgres -rounds 5 -sizes 10000,100000,500000
//	go run ./outbox -dialect sqlite -quick
//
// It makes a database of its own on the server, which MILLRACE_TEST_POSTGRES_URL or
// MILLRACE_TEST_MYSQL_URL or -url names, and drops it in the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
)

// plan is how much is measured.
type plan struct {
	rounds       int
	only         string
	variants     string
	sizes        []int
	kept         int           // rows below the cursor
	transactions int           // of one short round, by one client
	latencies    int           // events of one round
	limit        time.Duration // of one run of a slow peer
}

func main() {
	dialect := flag.String("dialect", "postgres", "`NAME` of the database: postgres, mysql or sqlite")
	url := flag.String("url", "", "`URL` of a database of the server")
	sizes := flag.String("sizes", "10000,100000", "backlogs to drain, `ROWS` separated by commas")
	quick := flag.Bool("quick", false, "one round of everything with little of it, to see that it works")
	profile := flag.String("cpuprofile", "", "write a profile of the CPU to `FILE`")
	allocs := flag.String("memprofile", "", "write a profile of allocations to `FILE`")
	p := plan{transactions: 40, latencies: 500, limit: 20 * time.Second}
	flag.IntVar(&p.rounds, "rounds", 5, "`N` rounds, of which the median counts")
	flag.StringVar(&p.only, "only", "", "run only tables whose title has this `TEXT`")
	flag.StringVar(&p.variants, "variants", "", "in these run the first variant, and of the others only those whose name matches this `REGEXP`")
	flag.IntVar(&p.kept, "kept", 5_000_000, "`ROWS` that are kept below the cursor")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := p.parse(*sizes, *quick)
	if err == nil {
		err = rounds.Profiled(*profile, *allocs, func() error { return run(ctx, *dialect, *url, p) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "outbox:", err)
		os.Exit(1)
	}
}

func (p *plan) parse(sizes string, quick bool) error {
	if quick {
		*p = plan{rounds: 1, only: p.only, sizes: []int{5_000}, kept: 50_000, transactions: 10, latencies: 100, limit: 3 * time.Second}
		return nil
	}
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1000 {
			return fmt.Errorf("-sizes: %q is not a number of rows from 1000 on", s)
		}
		p.sizes = append(p.sizes, n)
	}
	if p.rounds < 1 {
		return errors.New("-rounds: must be at least 1")
	}
	return nil
}

func run(ctx context.Context, dialect, url string, p plan) (err error) {
	if _, err := p.choose([]rounds.Variant{{}}); err != nil {
		return err
	}
	b, err := open(ctx, dialect, url, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	tables := b.enqueueTables()
	tables = append(tables, b.drainTables()...)
	for _, t := range tables {
		if !b.wanted(t.Title) {
			continue
		}
		if t.Variants, err = p.choose(t.Variants); err != nil {
			return err
		}
		if err := t.Run(p.rounds); err != nil {
			return err
		}
	}
	return b.latencyTables()
}

// wanted reports whether a table is to be run.
func (p *plan) wanted(title string) bool { return strings.Contains(title, p.only) }

// choose returns the variants that are to be run.
func (p *plan) choose(all []rounds.Variant) ([]rounds.Variant, error) {
	chosen, err := regexp.Compile(p.variants)
	if err != nil {
		return nil, fmt.Errorf("-variants: %w", err)
	}
	some := all[:1:1]
	for _, v := range all[1:] {
		if chosen.MatchString(v.Name) {
			some = append(some, v)
		}
	}
	return some, nil
}
