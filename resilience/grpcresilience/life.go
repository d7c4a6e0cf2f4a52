package grpcresilience

import (
	"context"
	"errors"

	"google.golang.org/grpc/status"
)

// life is the context of a stream. It has the values of the attempt that opens
// it, and ends with that attempt while that lasts; afterwards it ends with the
// caller's only, whose deadline it has.
type life struct {
	attempt context.Context
	cancel  context.CancelFunc
	free    func() bool // from the attempt
	forget  func() bool // the caller
}

func newLife(caller, attempt context.Context) (*life, context.Context) {
	ctx, cancel := withDeadlineOf(caller, context.WithoutCancel(attempt))
	_, timed := caller.Deadline()
	l := &life{attempt: attempt, cancel: cancel}
	l.free = context.AfterFunc(attempt, cancel)
	l.forget = context.AfterFunc(caller, func() {
		if !timed || !errors.Is(caller.Err(), context.DeadlineExceeded) { // ctx has the same one
			cancel()
		}
	})
	return l, ctx
}

func withDeadlineOf(caller, ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := caller.Deadline(); ok {
		return context.WithDeadline(ctx, deadline)
	}
	return context.WithCancel(ctx)
}

// begin frees a stream that was opened from the attempt. If the attempt has
// ended, that is the error: gRPC has seen the stream's context only.
func (l *life) begin(err error) error {
	if l.free() && err == nil {
		return nil
	}
	ended := l.attempt.Err()
	if ended == nil {
		return err
	}
	s := status.FromContextError(ended)
	if err != nil {
		s = status.New(s.Code(), status.Convert(err).Message())
	}
	return s.Err()
}

// end ends the context, and with it a stream that was not handed over.
func (l *life) end() {
	l.free()
	l.forget()
	l.cancel()
}
