package main

import (
	"context"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"

	"github.com/millrace-go/millrace/resilience"
)

// hedges have calls that are fast, so that none is hedged.
func hedges() group {
	ours := resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second}))
	safe := failsafe.With[any](hedgepolicy.NewWithDelay[any](time.Second))
	return group{title: "hedge, none fired", variants: []variant{
		shared("by hand: a timer and a context", func() error { return handHedge(ctx, work) }),
		shared("millrace", func() error { return ours.Do(ctx, work) }),
		shared("failsafe-go", func() error { return safe.Run(nullary) }),
	}}
}

// handHedge makes the first attempt in the caller's goroutine.
func handHedge(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	second := make(chan error, 1)
	t := time.AfterFunc(time.Second, func() {
		second <- fn(ctx)
		cancel()
	})
	err := fn(ctx)
	if t.Stop() || err == nil {
		return err
	}
	return <-second
}
