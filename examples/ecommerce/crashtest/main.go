// Command crashtest kills the shop with kill -9 at random moments, again and
// again, while customers place orders, and proves afterwards that every order
// that was accepted has come to its end and that the books are right.
//
//	go run ./examples/ecommerce/crashtest -form one -rounds 20
//	go run ./examples/ecommerce/crashtest -form six -rounds 20
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	cfg := config{}
	flag.StringVar(&cfg.form, "form", "one", "`FORM` to test: one process, or six of which one is killed at a time")
	flag.IntVar(&cfg.rounds, "rounds", 20, "`N` kills")
	flag.IntVar(&cfg.inFlight, "orders", 200, "`N` orders to keep in flight")
	flag.Float64Var(&cfg.fail, "fail", 0.1, "`RATIO` of handler calls that fail")
	flag.Float64Var(&cfg.decline, "decline", 0.1, "`RATIO` of payments to decline")
	flag.Uint64Var(&cfg.seed, "seed", rand.Uint64(), "seed of what is decided by chance")
	flag.StringVar(&cfg.bus, "bus", "", "`URL` of the event bus (default: a SQLite file)")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "crashtest: unexpected argument %q\n", flag.Args())
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, func(format string, args ...any) { fmt.Printf(format+"\n", args...) }, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "crashtest:", err)
		os.Exit(1)
	}
}
