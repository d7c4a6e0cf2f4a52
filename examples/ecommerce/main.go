// Command ecommerce is a shop made of six services that talk to each other by
// events only: storefront, order, payment, warehouse, shipping and email.
//
//	go run ./examples/ecommerce                          # all in one process
//	go run ./examples/ecommerce -demo 50 -decline 0.2    # place orders, audit, exit
//	go run ./examples/ecommerce -services order,payment  # some; start the others beside
//
// See docs/ecommerce.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/millrace-go/millrace/examples/ecommerce/demo"
)

func main() {
	cfg, err := parseFlags(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "ecommerce:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "ecommerce:", err)
		os.Exit(1)
	}
}

// run opens the shop and keeps it open until ctx ends or, if a demo is asked
// for, until that is over.
func run(ctx context.Context, cfg config) error {
	s, err := openShop(ctx, cfg)
	if err != nil {
		return err
	}
	var play func(context.Context) error
	if cfg.demo > 0 {
		slog.SetLogLoggerLevel(slog.LevelWarn) // the demo says what happens
		play = func(ctx context.Context) error {
			return demo.Run(ctx, os.Stdout, demo.Config{URL: s.url(), Orders: cfg.demo, Seed: cfg.seed, Patience: cfg.patience()})
		}
	}
	return errors.Join(s.run(ctx, play), s.close())
}
