// Command saga measures a saga of three steps, whose participants are functions
// that do nothing, on PostgreSQL: beside what one would write by hand, and beside
// the database alone. All in one run, interleaved, on one machine.
//
//	go run ./saga -postgres postgres://127.0.0.1:5432/postgres -rounds 7
//	go run ./saga -postgres ... -only timers
//
// It makes a database of its own on the server and drops it in the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
)

// plan is how much is measured.
type plan struct {
	rounds            int
	only              string
	waiting, finished int // instances in the full table
	timers            int // due in each of timerSeconds
	sagas             int // for the heap
}

func main() {
	var p plan
	server := flag.String("postgres", "", "`URL` of a database of a PostgreSQL server")
	profile := flag.String("cpuprofile", "", "write a profile of the CPU to `FILE`")
	allocs := flag.String("memprofile", "", "write a profile of allocations to `FILE`")
	flag.IntVar(&p.rounds, "rounds", 7, "`N` rounds, of which the median counts")
	flag.StringVar(&p.only, "only", "", "run only parts whose title has this `TEXT`")
	flag.IntVar(&p.waiting, "waiting", 100_000, "`N` waiting instances in the full table")
	flag.IntVar(&p.finished, "finished", 1_000_000, "`N` finished instances in the full table")
	flag.IntVar(&p.timers, "timers", 10_000, "`N` timers that are due in one second")
	flag.IntVar(&p.sagas, "sagas", 100_000, "`N` sagas for the heap, which is looked at after a tenth and in the end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := rounds.Profiled(*profile, *allocs, func() error { return run(ctx, *server, p) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "saga:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server string, p plan) (err error) {
	if server == "" {
		return errors.New("name a server; see -help")
	}
	dsn, drop, err := newDatabase(ctx, server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop()) }()
	b, err := open(ctx, dsn, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, part := range b.parts() {
		if !strings.Contains(part.title, p.only) {
			continue
		}
		if err := part.run(); err != nil {
			return fmt.Errorf("%s: %w", part.title, err)
		}
	}
	return nil
}

// part is something that can be asked for by its title.
type part struct {
	title string
	run   func() error
}

func (b *bench) parts() []part {
	all := []part{{"counted", b.count}}
	for _, workers := range []int{1, 16, 64} {
		t := b.compared(workers)
		all = append(all, part{t.Title, func() error { return t.Run(b.rounds) }})
	}
	for _, workers := range []int{1, 16} {
		t := b.serving(workers)
		all = append(all, part{t.Title, func() error { return t.Run(b.rounds) }})
	}
	return append(all, part{"full table", b.full}, part{"timers", b.timers}, part{"heap", b.heap})
}
