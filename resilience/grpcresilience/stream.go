package grpcresilience

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-go/millrace/resilience"
)

// StreamClientInterceptor returns an interceptor that opens streams through
// policy, which must not be nil, and tells it how they end; see the package's
// documentation for what that means. RecvMsg returns the error that ends a stream
// when the policy knows of it.
func StreamClientInterceptor(policy resilience.Policy, cfg ClientConfig) grpc.StreamClientInterceptor {
	resilience.Must(kindsOf(policy))
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		c := &streamCall{
			caller: ctx, desc: desc, idempotent: cfg.idempotent(method),
			open: func(ctx context.Context, own ...grpc.CallOption) (grpc.ClientStream, error) {
				return streamer(ctx, desc, conn, method, append(opts[:len(opts):len(opts)], own...)...)
			},
			opened: make(chan *clientStream, 1),
			over:   make(chan struct{}),
		}
		go c.run(policy)
		return c.wait()
	}
}

// streamCall is a stream as a call of a policy. It runs in a goroutine of its
// own, until the stream has ended.
type streamCall struct {
	caller     context.Context
	desc       *grpc.StreamDesc
	idempotent bool
	open       func(ctx context.Context, own ...grpc.CallOption) (grpc.ClientStream, error)

	once   once
	finish context.CancelFunc // ends the policy's context
	opened chan *clientStream
	over   chan struct{}
	err    error // of the policy, when over
}

func (c *streamCall) run(policy resilience.Policy) {
	defer close(c.over)
	var ctx context.Context
	ctx, c.finish = context.WithCancel(c.caller)
	defer c.finish()
	c.err = outcome(policy.Do(ctx, c.attempt))
}

// wait returns the stream, or why there is none.
func (c *streamCall) wait() (grpc.ClientStream, error) {
	select {
	case s := <-c.opened:
		return s, nil
	case <-c.over:
	}
	select {
	case s := <-c.opened:
		return s, nil
	default:
	}
	if c.err == nil {
		return nil, status.Error(codes.Unavailable, "grpcresilience: the policy has returned neither a stream nor an error")
	}
	return nil, withStatus(c.caller, c.err, 0)
}

// attempt opens the stream, hands it to the caller, and returns how it ended.
func (c *streamCall) attempt(ctx context.Context) error {
	a, err := c.once.begin()
	if err != nil {
		return err
	}
	l, ctx := newLife(c.caller, ctx)
	defer l.end()
	s := &clientStream{call: c, ended: make(chan error, 1)}
	s.ClientStream, err = c.open(ctx, append(a.options(nil), grpc.OnFinish(s.end))...)
	if err = l.begin(err); err != nil {
		return c.once.end(a, err, c.idempotent || a.unsent())
	}
	c.opened <- s
	err = s.wait(ctx)
	c.finish() // or a Retry might pause, and a Timeout find that it was too late
	return c.once.end(a, err, false)
}

// clientStream watches how a stream ends.
type clientStream struct {
	grpc.ClientStream
	call  *streamCall
	ended chan error // holds how
}

// end is called by gRPC, and by RecvMsg in case that an interceptor has not
// passed the option on. The first one counts.
func (s *clientStream) end(err error) {
	if errors.Is(err, io.EOF) {
		err = nil
	}
	select {
	case s.ended <- err:
	default:
	}
}

func (s *clientStream) wait(ctx context.Context) error {
	select {
	case err := <-s.ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-s.ended:
		return err
	default:
		return status.FromContextError(ctx.Err()).Err()
	}
}

// RecvMsg receives a message. A stream of a method that answers once is over
// with that.
func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil && s.call.desc.ServerStreams {
		return nil
	}
	s.end(err)
	<-s.call.over
	return WithClass(err)
}
