package resilience

import (
	"context"
	"errors"
	"time"
)

// ErrPanicked stands for the error of a call whose function panicked or called
// runtime.Goexit, where somebody has to be told about it.
var ErrPanicked = errors.New("the function panicked or called runtime.Goexit")

// Measure returns p with a function that is told, after each call, how long it
// took and what came of it, for metrics and traces; package otelresilience uses
// it. record is called in the goroutine of the call, with the caller's context,
// and must be safe for concurrent use.
func Measure(p Policy, record func(ctx context.Context, took time.Duration, err error)) Policy {
	return &measured{asLayer(p), record}
}

type measured struct {
	layer
	record func(ctx context.Context, took time.Duration, err error)
}

func (m *measured) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	return m.do(ctx, call{target: function(fn)})
}

func (m *measured) do(ctx context.Context, c call) error {
	begun := c.clock()
	err := ErrPanicked
	defer func() { m.record(ctx, time.Duration(now()-begun), err) }()
	err = m.layer.do(ctx, c)
	return err
}
