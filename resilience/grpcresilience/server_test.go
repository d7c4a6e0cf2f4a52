package grpcresilience_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/grpcresilience"
)

var insecureOption = grpc.WithTransportCredentials(insecure.NewCredentials())

// behind is s behind a policy, and a client without one.
func behind(t *testing.T, policy resilience.Policy, cfg grpcresilience.ServerConfig, s *shop) *grpc.ClientConn {
	t.Helper()
	unary, err := grpcresilience.UnaryServerInterceptor(policy, cfg)
	require.NoError(t, err)
	stream, err := grpcresilience.StreamServerInterceptor(policy, cfg)
	require.NoError(t, err)
	addr, _ := serve(t, "127.0.0.1:0", s, grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream))
	conn, err := grpc.NewClient(addr, insecureOption)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// stream runs a stream to its end.
func stream(ctx context.Context, conn *grpc.ClientConn) error {
	s, err := conn.NewStream(ctx, chatDesc, chat)
	if err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	for {
		if _, err := receive(s); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func retryInfo(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.RetryDelay.AsDuration()
		}
	}
	return 0
}

func TestServerSheds(t *testing.T) {
	limiter := resilience.Must(resilience.NewRateLimiter(resilience.RateLimiterConfig{Calls: 1, Per: time.Hour}))
	require.NoError(t, limiter.Do(t.Context(), func(context.Context) error { return nil }))
	isolated := breaker(t, 5)
	isolated.Isolate()
	full := oneAtATime(t)
	begun, release, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- full.Do(context.Background(), func(context.Context) error { close(begun); <-release; return nil })
	}()
	<-begun
	defer func() { close(release); require.NoError(t, <-ended) }()
	for name, c := range map[string]struct {
		policy resilience.Policy
		code   codes.Code
		after  func(time.Duration) bool
	}{
		"rate":     {limiter, codes.ResourceExhausted, func(d time.Duration) bool { return d > 59*time.Minute && d <= time.Hour }},
		"breaker":  {isolated, codes.Unavailable, func(d time.Duration) bool { return d == time.Second }},
		"bulkhead": {full, codes.Unavailable, func(d time.Duration) bool { return d == 7*time.Second }},
	} {
		t.Run(name, func(t *testing.T) {
			var handled atomic.Int32
			conn := behind(t, pipeline(t, c.policy), grpcresilience.ServerConfig{
				RetryAfter: 7 * time.Second,
				Exempt:     func(method string) bool { return method == get || method == watch },
			}, &shop{
				unary:  func(context.Context, string) (string, error) { handled.Add(1); return "ok", nil },
				stream: func(grpc.ServerStream) error { handled.Add(1); return nil },
			})
			_, unary := invoke(t.Context(), conn, charge, "x")
			for _, err := range []error{unary, stream(t.Context(), conn)} {
				require.Equal(t, c.code, status.Code(err), err)
				require.True(t, c.after(retryInfo(err)), retryInfo(err))
			}
			require.Zero(t, handled.Load())
			out, err := invoke(t.Context(), conn, get, "x")
			require.NoError(t, err, "it is exempt")
			require.Equal(t, "ok", out)
			s, err := conn.NewStream(t.Context(), watchDesc, watch)
			require.NoError(t, err)
			send(t, s, "x")
			_, err = receive(s)
			require.Equal(t, io.EOF, err)
		})
	}
}

// What the handler returns reaches the client as it is, and the breaker by its
// class.
func TestHandlersErrors(t *testing.T) {
	for _, c := range []struct {
		err   error
		code  codes.Code
		opens bool
	}{
		{withRetryInfo(codes.Unavailable, 2*time.Second), codes.Unavailable, true},
		{status.Error(codes.Internal, "x"), codes.Internal, true},
		{errors.New("disk"), codes.Unknown, true},
		{context.DeadlineExceeded, codes.DeadlineExceeded, true},
		{status.Error(codes.NotFound, "x"), codes.NotFound, false},
		{context.Canceled, codes.Canceled, false},
	} {
		for _, kind := range []string{"unary", "stream"} {
			b := breaker(t, 1)
			conn := behind(t, pipeline(t, b, timeout(t, time.Minute)), grpcresilience.ServerConfig{}, &shop{
				unary:  func(context.Context, string) (string, error) { return "", c.err },
				stream: func(grpc.ServerStream) error { return c.err },
			})
			var err error
			if kind == "unary" {
				_, err = invoke(t.Context(), conn, charge, "x")
			} else {
				err = stream(t.Context(), conn)
			}
			want := status.Convert(c.err)
			if want.Code() == codes.Unknown {
				want = status.New(c.code, c.err.Error())
			}
			require.Equal(t, want.Proto().String(), status.Convert(err).Proto().String(), kind)
			require.Equal(t, c.opens, b.State() == resilience.Open, "%s %v", kind, c.err)
		}
	}
}

func TestServersTimeout(t *testing.T) {
	conn := behind(t, timeout(t, 20*time.Millisecond), grpcresilience.ServerConfig{}, &shop{
		unary:  func(ctx context.Context, _ string) (string, error) { <-ctx.Done(); return "", ctx.Err() },
		stream: func(s grpc.ServerStream) error { <-s.Context().Done(); return s.Context().Err() },
	})
	_, err := invoke(t.Context(), conn, charge, "x")
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.Equal(t, codes.DeadlineExceeded, status.Code(stream(t.Context(), conn)))
}

func TestServersPolicyCallsHandlersOnce(t *testing.T) {
	hedge := resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second}))
	fallback := resilience.Must(resilience.NewFallback(resilience.FallbackConfig{Do: func(context.Context, error) error { return nil }}))
	for _, c := range []struct {
		policy resilience.Policy
		cfg    grpcresilience.ServerConfig
		text   []string
	}{
		{retry(t, resilience.RetryConfig{Name: "r"}), grpcresilience.ServerConfig{}, []string{"retry r(", "would call the handler twice"}},
		{pipeline(t, breaker(t, 1), pipeline(t, hedge), fallback), grpcresilience.ServerConfig{RetryAfter: -1}, []string{"hedge(", "fallback(", "RetryAfter must not be negative"}},
		{nil, grpcresilience.ServerConfig{}, []string{"policy 1 is nil"}},
	} {
		_, unary := grpcresilience.UnaryServerInterceptor(c.policy, c.cfg)
		_, stream := grpcresilience.StreamServerInterceptor(c.policy, c.cfg)
		for _, text := range c.text {
			require.ErrorContains(t, unary, text)
			require.ErrorContains(t, stream, text)
		}
	}
}

// A policy of somebody's own can't be looked into.
func TestServersOwnPolicies(t *testing.T) {
	var handled atomic.Int32
	fails := &shop{unary: func(context.Context, string) (string, error) {
		handled.Add(1)
		return "", status.Error(codes.Unavailable, "x")
	}}
	again := func(ctx context.Context, fn func(context.Context) error) error { _ = fn(ctx); return fn(ctx) }
	hides := func(ctx context.Context, fn func(context.Context) error) error { _ = fn(ctx); return nil }
	_, err := invoke(t.Context(), behind(t, resilience.PolicyFunc(again), grpcresilience.ServerConfig{}, fails), charge, "x")
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.EqualValues(t, 1, handled.Load())
	_, err = invoke(t.Context(), behind(t, resilience.PolicyFunc(hides), grpcresilience.ServerConfig{}, fails), charge, "x")
	require.Equal(t, codes.Internal, status.Code(err))
}

func TestPreviousAttemptsTravel(t *testing.T) {
	seen := make(chan int, 10)
	back := behind(t, pipeline(t), grpcresilience.ServerConfig{}, &shop{
		unary: func(ctx context.Context, _ string) (string, error) {
			seen <- resilience.PreviousAttempts(ctx)
			return "", nil
		},
		stream: func(s grpc.ServerStream) error { seen <- resilience.PreviousAttempts(s.Context()); return nil },
	})
	for _, c := range []struct {
		values []string
		want   int
	}{
		{nil, 0}, {[]string{"100"}, 100}, {[]string{"1", "3"}, 3}, {[]string{"-4"}, 0}, {[]string{"101"}, 0},
		{[]string{"99999999999999999999", "x", "", "1"}, 1},
	} {
		ctx := t.Context()
		for _, v := range c.values {
			ctx = metadata.AppendToOutgoingContext(ctx, grpcresilience.PreviousAttemptsMetadata, v)
		}
		_, err := invoke(ctx, back, get, "x")
		require.NoError(t, err)
		require.Equal(t, c.want, <-seen, c.values)
		require.NoError(t, stream(ctx, back))
		require.Equal(t, c.want, <-seen, c.values)
	}
}

// A front retries, the service behind it must not.
func TestRetriesAlongAChainAddUp(t *testing.T) {
	var calls atomic.Int32
	last, _ := serve(t, "127.0.0.1:0", &shop{unary: func(context.Context, string) (string, error) {
		calls.Add(1)
		return "", status.Error(codes.Unavailable, "x")
	}})
	all := grpcresilience.ClientConfig{Idempotent: func(string) bool { return true }}
	toLast := dial(t, last, retry(t, resilience.RetryConfig{}), all)
	middle, err := grpcresilience.UnaryServerInterceptor(pipeline(t), grpcresilience.ServerConfig{})
	require.NoError(t, err)
	front, _ := serve(t, "127.0.0.1:0", &shop{unary: func(ctx context.Context, in string) (string, error) {
		return invoke(ctx, toLast, get, in)
	}}, grpc.UnaryInterceptor(middle))
	_, err = invoke(t.Context(), dial(t, front, retry(t, resilience.RetryConfig{}), all), get, "x")
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.EqualValues(t, 3+1+1, calls.Load(), "the first try has three, each of the others one")
}
