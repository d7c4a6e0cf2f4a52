package grpcresilience

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/internal/target"
)

// ServerConfig configures server interceptors. The zero value is safe.
type ServerConfig struct {
	// Exempt says which methods, such as "/grpc.health.v1.Health/Check", don't go
	// through the policy. It must be safe for concurrent use. Defaults to none.
	Exempt func(fullMethod string) bool
	// RetryAfter is what RetryInfo asks a client for whose call was turned away by
	// a policy that does not know when to try again, such as a Bulkhead. Defaults
	// to a second.
	RetryAfter time.Duration
}

func (c ServerConfig) complete(policy resilience.Policy) (ServerConfig, error) {
	var negative error
	if c.RetryAfter < 0 {
		negative = fmt.Errorf("grpcresilience: server interceptor: RetryAfter must not be negative, got %v", c.RetryAfter)
	}
	if c.RetryAfter == 0 {
		c.RetryAfter = time.Second
	}
	if c.Exempt == nil {
		c.Exempt = func(string) bool { return false }
	}
	return c, errors.Join(forHandlers(policy), negative)
}

// UnaryServerInterceptor returns an interceptor that calls handlers through
// policy, or all that is wrong: a policy with a Retry or a Hedge would call a
// handler twice, and a Fallback has no response. Put it after interceptors that
// are to see calls that were turned away.
func UnaryServerInterceptor(policy resilience.Policy, cfg ServerConfig) (grpc.UnaryServerInterceptor, error) {
	cfg, err := cfg.complete(policy)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx = incoming(ctx)
		if cfg.Exempt(info.FullMethod) {
			return handler(ctx, request)
		}
		c := &unaryHandling{handling: handling{pause: cfg.RetryAfter}, request: request, handler: handler}
		if err := c.outcome(ctx, target.Do(ctx, policy, c)); err != nil {
			return nil, err
		}
		return c.response, nil
	}, nil
}

// StreamServerInterceptor is UnaryServerInterceptor for streams: the policy
// surrounds the handler, and with it the whole stream.
func StreamServerInterceptor(policy resilience.Policy, cfg ServerConfig) (grpc.StreamServerInterceptor, error) {
	cfg, err := cfg.complete(policy)
	if err != nil {
		return nil, err
	}
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx := incoming(stream.Context())
		if cfg.Exempt(info.FullMethod) {
			return handler(srv, &serverStream{stream, ctx})
		}
		h := &handling{pause: cfg.RetryAfter}
		return h.outcome(ctx, policy.Do(ctx, func(ctx context.Context) error {
			if err := h.begin(); err != nil {
				return err
			}
			return h.end(handler(srv, &serverStream{stream, ctx}))
		}))
	}, nil
}

type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *serverStream) Context() context.Context { return s.ctx }

// unaryHandling is the handling of a unary call.
type unaryHandling struct {
	handling
	request, response any
	handler           grpc.UnaryHandler
}

// Run is of target.Target.
func (c *unaryHandling) Run(ctx context.Context) (err error) {
	if err = c.begin(); err != nil {
		return err
	}
	c.response, err = c.handler(ctx, c.request)
	return c.end(err)
}

// Fork is of target.Target: there is no other attempt.
func (c *unaryHandling) Fork() target.Target { return c }

// Join is of target.Target.
func (c *unaryHandling) Join(target.Target) {}

// handling is a call whose handler is called once at most, also under a policy of
// somebody's own that would do it again.
type handling struct {
	pause             time.Duration
	called, succeeded atomic.Bool
}

func (h *handling) begin() error {
	if h.called.Swap(true) {
		return errCalledTwice
	}
	return nil
}

func (h *handling) end(err error) error {
	if err == nil {
		h.succeeded.Store(true)
	}
	return WithClass(err)
}

// outcome takes the result of the policy.
func (h *handling) outcome(ctx context.Context, err error) error {
	if err == nil && !h.succeeded.Load() {
		return errNoResponse
	}
	return withStatus(ctx, err, h.pause)
}

var (
	errCalledTwice = WithClass(status.Error(codes.FailedPrecondition, "grpcresilience: the policy calls the handler twice"))
	errNoResponse  = status.Error(codes.Internal, "grpcresilience: the policy hides that the handler has not succeeded")
)
