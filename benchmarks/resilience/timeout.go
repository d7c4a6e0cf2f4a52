package main

import (
	"context"
	"time"

	"github.com/eapache/go-resiliency/deadline"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/timeout"
	goresilience "github.com/slok/goresilience/timeout"

	"github.com/millrace-go/millrace/resilience"
)

func timeouts() group {
	ours := newTimeout()
	safe := failsafe.With[any](timeout.New[any](time.Second))
	eapache := deadline.New(time.Second)
	slok := goresilience.New(goresilience.Config{Timeout: time.Second})
	unwatched := func(<-chan struct{}) error { return work(ctx) }
	return group{title: "timeout, context not watched", variants: []variant{
		shared("by hand: a context that makes its timer when asked", func() error { return handTimeout(ctx, work) }),
		shared("by hand: the same with time.Now and sync.Once", func() error { return lazyTimeout(ctx, work) }),
		shared("by hand: context.WithTimeout", func() error { return standardTimeout(ctx, work) }),
		shared("millrace", func() error { return ours.Do(ctx, work) }),
		shared("failsafe-go", func() error { return safe.Run(nullary) }),
		shared("eapache deadline", func() error { return eapache.Run(unwatched) }),
		shared("goresilience", func() error { return slok.Run(ctx, work) }),
	}}
}

func watchedTimeouts() group {
	ours := newTimeout()
	safe := failsafe.With[any](timeout.New[any](time.Second))
	watching := func(e failsafe.Execution[any]) error { return watch(e.Context()) }
	slok := goresilience.New(goresilience.Config{Timeout: time.Second})
	return group{title: "timeout, context watched", bare: shared("watching", func() error { return watch(ctx) }), variants: []variant{
		shared("by hand: context.WithTimeout", func() error { return standardTimeout(ctx, watch) }),
		shared("by hand: a context that makes its timer when asked", func() error { return handTimeout(ctx, watch) }),
		shared("millrace", func() error { return ours.Do(ctx, watch) }),
		shared("failsafe-go", func() error { return safe.WithContext(ctx).RunWithExecution(watching) }),
		shared("goresilience", func() error { return slok.Run(ctx, watch) }),
	}}
}

func newTimeout() *resilience.Timeout {
	return resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: time.Second}))
}

func standardTimeout(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return fn(ctx)
}
