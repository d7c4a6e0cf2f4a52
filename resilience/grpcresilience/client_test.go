package grpcresilience_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/grpcresilience"
)

// through calls method with a made-up invoker.
func through(ctx context.Context, p resilience.Policy, method string, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) (string, error) {
	out := &wrapperspb.StringValue{}
	err := grpcresilience.UnaryClientInterceptor(p, grpcresilience.ClientConfig{Idempotent: onlyGet})(ctx, method, wrapperspb.String("in"), out, nil, invoker, opts...)
	return out.Value, err
}

// answers is an invoker that fails with each of errs, then succeeds.
func answers(calls *atomic.Int32, errs ...error) grpc.UnaryInvoker {
	return func(_ context.Context, _ string, _, reply any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		n := int(calls.Add(1))
		if n <= len(errs) {
			return errs[n-1]
		}
		reply.(*wrapperspb.StringValue).Value = "ok"
		return nil
	}
}

func TestIdempotentMethodIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		begun := time.Now()
		out, err := through(t.Context(), retry(t, resilience.RetryConfig{}), get,
			answers(&calls, status.Error(codes.Unavailable, "x"), withRetryInfo(codes.ResourceExhausted, 3*time.Second)))
		require.NoError(t, err)
		require.Equal(t, "ok", out)
		require.EqualValues(t, 3, calls.Load())
		require.GreaterOrEqual(t, time.Since(begun), 3*time.Second)
	})
}

func TestOtherMethodsAreNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := resilience.Must(resilience.NewBudget(resilience.BudgetConfig{Burst: 7}))
		b := breaker(t, 2)
		for name, p := range map[string]resilience.Policy{
			"retry":         pipeline(t, retry(t, resilience.RetryConfig{Budget: budget}), b),
			"retry at will": retry(t, resilience.RetryConfig{If: func(error) bool { return true }, MaxRetryAfter: math.MaxInt64, Budget: budget}),
		} {
			var calls atomic.Int32
			begun := time.Now()
			failure := withRetryInfo(codes.Unavailable, 2*time.Second)
			_, err := through(t.Context(), p, charge, answers(&calls, failure))
			require.ErrorIs(t, err, failure, name)
			require.Equal(t, codes.Unavailable, status.Code(err), name)
			require.NotErrorIs(t, err, resilience.ErrRetriesExhausted, name)
			require.Equal(t, resilience.Throttled, resilience.Classify(err), name)
			after, _ := resilience.RetryAfter(err)
			require.Equal(t, 2*time.Second, after, "what the server asked for, not us")
			require.EqualValues(t, 1, calls.Load(), name)
			require.Zero(t, time.Since(begun), "there is nothing to wait for")
			require.Equal(t, 7, budget.Left(), "nor to pay for")
		}
		var calls atomic.Int32
		_, err := through(t.Context(), b, charge, answers(&calls, status.Error(codes.Internal, "x")))
		require.Error(t, err)
		require.Equal(t, resilience.Open, b.State(), "the breaker has counted both failures")
	})
}

// unsentFirst is an invoker whose first call fails as gRPC does without a
// connection, and whose second reaches the server and fails.
func unsentFirst(calls *atomic.Int32, failure error) grpc.UnaryInvoker {
	return func(_ context.Context, _ string, _, _ any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
		n := calls.Add(1)
		for _, o := range opts {
			switch o := o.(type) {
			case grpc.PeerCallOption:
				if n > 1 {
					o.PeerAddr.Addr = address("server")
				}
			case grpc.OnFinishCallOption:
				o.OnFinish(failure)
			}
		}
		return failure
	}
}

func TestRetriesEndWhenTheServerMayHaveTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := status.Error(codes.Unavailable, "x")
		for _, cfg := range []resilience.RetryConfig{
			{Attempts: 9},
			{Attempts: 9, Nested: true},
			{Attempts: 9, If: func(error) bool { return true }},
		} {
			var calls atomic.Int32
			_, err := through(t.Context(), retry(t, cfg), charge, unsentFirst(&calls, failure))
			var r *resilience.RetryError
			require.ErrorAs(t, err, &r)
			require.Equal(t, 2, r.Attempts, "those that were made")
			require.Equal(t, "the call must not be made twice", r.Reason)
			require.EqualValues(t, 2, calls.Load())
			require.Equal(t, codes.Unavailable, status.Code(err))
			require.Equal(t, resilience.Transient, resilience.Classify(err))
			require.False(t, resilience.IsRejected(err))
		}
		var calls atomic.Int32
		_, err := through(t.Context(), retry(t, resilience.RetryConfig{Nested: true}), charge, answers(&calls, failure, failure))
		require.ErrorIs(t, err, failure)
		require.NotErrorIs(t, err, resilience.ErrRetriesExhausted)
		require.EqualValues(t, 1, calls.Load())
	})
}

// A retried reply does not add to what a failed attempt left.
func TestReplyIsOfOneAttempt(t *testing.T) {
	out := &structpb.ListValue{}
	calls := 0
	err := grpcresilience.UnaryClientInterceptor(retry(t, resilience.RetryConfig{}), grpcresilience.ClientConfig{Idempotent: onlyGet})(
		t.Context(), get, nil, out, nil, func(_ context.Context, _ string, _, r any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			list := r.(*structpb.ListValue)
			list.Values = append(list.Values, structpb.NewStringValue("x"))
			if calls++; calls == 1 {
				return status.Error(codes.Unavailable, "x")
			}
			return nil
		})
	require.NoError(t, err)
	require.Len(t, out.Values, 1)
}

// A policy of somebody's own tries again whatever the error says.
func TestStubbornPolicyIsRefused(t *testing.T) {
	var calls atomic.Int32
	failure := status.Error(codes.Unavailable, "x")
	var second error
	stubborn := resilience.PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		_ = fn(ctx)
		second = fn(ctx)
		return second
	})
	_, err := through(t.Context(), stubborn, charge, answers(&calls, failure))
	require.ErrorIs(t, err, failure)
	require.EqualValues(t, 1, calls.Load())
	require.Equal(t, resilience.Permanent, resilience.Classify(second))
	require.True(t, resilience.IsRejected(second))
	require.Equal(t, codes.Unavailable, status.Code(err))
	after, _ := resilience.RetryAfter(err)
	require.Zero(t, after)
}

func TestErrorsOfPoliciesHaveAStatus(t *testing.T) {
	down := status.Error(codes.Unavailable, "down")
	limited := resilience.Must(resilience.NewRateLimiter(resilience.RateLimiterConfig{Calls: 1, Per: time.Hour}))
	require.NoError(t, limited.Do(t.Context(), func(context.Context) error { return nil }))
	open := breaker(t, 1)
	require.Error(t, open.Do(t.Context(), func(context.Context) error { return errors.New("x") }))
	cancelled, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("user has left"))
	late, stop := context.WithTimeout(context.Background(), -1)
	defer stop()
	watching := func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	failing := func(err error) grpc.UnaryInvoker { return answers(new(atomic.Int32), err, err, err, err) }
	for name, c := range map[string]struct {
		ctx     context.Context
		policy  resilience.Policy
		invoker grpc.UnaryInvoker
		code    codes.Code
		is      []error
		class   resilience.Class
		asks    bool
	}{
		"no policy":         {nil, pipeline(t), failing(down), codes.Unavailable, []error{down}, resilience.Transient, false},
		"retries":           {nil, retry(t, resilience.RetryConfig{}), failing(down), codes.Unavailable, []error{down, resilience.ErrRetriesExhausted}, resilience.Transient, false},
		"permanent":         {nil, retry(t, resilience.RetryConfig{}), failing(status.Error(codes.NotFound, "x")), codes.NotFound, nil, resilience.Permanent, false},
		"open":              {nil, open, failing(down), codes.Unavailable, []error{resilience.ErrOpen}, resilience.Throttled, true},
		"open in retry":     {nil, pipeline(t, retry(t, resilience.RetryConfig{}), open), failing(down), codes.Unavailable, []error{resilience.ErrOpen, resilience.ErrRetriesExhausted}, resilience.Throttled, true},
		"rate":              {nil, limited, failing(down), codes.ResourceExhausted, []error{resilience.ErrRateLimited}, resilience.Throttled, true},
		"timeout":           {nil, timeout(t, time.Millisecond), watching, codes.DeadlineExceeded, []error{resilience.ErrTimeout, context.DeadlineExceeded}, resilience.Transient, false},
		"timeout in retry":  {nil, pipeline(t, retry(t, resilience.RetryConfig{}), timeout(t, time.Millisecond)), watching, codes.DeadlineExceeded, []error{resilience.ErrTimeout, resilience.ErrRetriesExhausted}, resilience.Transient, false},
		"timeout of all":    {nil, pipeline(t, timeout(t, time.Millisecond), retry(t, resilience.RetryConfig{})), watching, codes.DeadlineExceeded, []error{resilience.ErrTimeout, resilience.ErrRetriesExhausted}, resilience.Transient, false},
		"cancelled":         {cancelled, retry(t, resilience.RetryConfig{}), watching, codes.Canceled, nil, resilience.Cancelled, false},
		"cancelled between": {cancelled, retry(t, resilience.RetryConfig{}), failing(down), codes.Canceled, []error{down, context.Canceled}, resilience.Cancelled, false},
		"deadline":          {late, pipeline(t), watching, codes.DeadlineExceeded, nil, resilience.Transient, false},
		"foreign":           {nil, pipeline(t), failing(errors.New("x")), codes.Unknown, nil, resilience.Transient, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := c.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			_, err := through(ctx, c.policy, get, c.invoker)
			s, ok := status.FromError(err)
			require.True(t, ok)
			require.Equal(t, c.code, s.Code(), err)
			require.Equal(t, c.code, status.Code(err))
			for _, target := range c.is {
				require.ErrorIs(t, err, target)
			}
			require.Equal(t, c.class, resilience.Classify(err))
			asks := false
			for _, d := range s.Details() {
				_, info := d.(*errdetails.RetryInfo)
				asks = asks || info
			}
			require.Equal(t, c.asks, asks, "RetryInfo")
		})
	}
}

// Attempts at a time write into storage of their own; -race watches.
func TestHedgedAttemptsShareNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hedge := resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second}))
		for _, winner := range []int32{1, 2} {
			var calls atomic.Int32
			var header, trailer metadata.MD
			var from peer.Peer
			out, err := through(t.Context(), hedge, get, func(ctx context.Context, _ string, _, reply any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
				n := calls.Add(1)
				pause := 2 * time.Second
				if n != winner {
					pause = time.Hour
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
				text := []string{"", "first", "second"}[n]
				reply.(*wrapperspb.StringValue).Value = text
				for _, o := range opts {
					switch o := o.(type) {
					case grpc.HeaderCallOption:
						*o.HeaderAddr = metadata.Pairs("from", text)
					case grpc.TrailerCallOption:
						*o.TrailerAddr = metadata.Pairs("from", text)
					case grpc.PeerCallOption:
						o.PeerAddr.LocalAddr = address(text)
					}
				}
				return ctx.Err()
			}, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&from), grpc.WaitForReady(true))
			require.NoError(t, err)
			want := []string{"", "first", "second"}[winner]
			require.Equal(t, want, out)
			require.Equal(t, []string{want}, header.Get("from"))
			require.Equal(t, []string{want}, trailer.Get("from"))
			require.Equal(t, want, from.LocalAddr.String())
			require.EqualValues(t, 2, calls.Load())
		}
	})
}

type address string

func (a address) Network() string { return "test" }
func (a address) String() string  { return string(a) }

func TestOtherMethodsAreNotHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, failure := range []error{nil, status.Error(codes.Unavailable, "x")} {
			hedge := resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second}))
			b := breaker(t, 1)
			var calls atomic.Int32
			out, err := through(t.Context(), pipeline(t, hedge, retry(t, resilience.RetryConfig{}), b), charge, func(_ context.Context, _ string, _, reply any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
				calls.Add(1)
				time.Sleep(5 * time.Second)
				reply.(*wrapperspb.StringValue).Value = "receipt"
				return failure
			})
			require.ErrorIs(t, err, failure)
			require.Equal(t, "receipt", out)
			require.EqualValues(t, 1, calls.Load())
			require.EqualValues(t, 1, hedge.Stats().Hedged)
			require.Equal(t, failure != nil, b.State() == resilience.Open)
		}
	})
}

// Messages of codecs other than protocol buffers are told apart by reflection.
func TestReplyOfAnotherCodec(t *testing.T) {
	type reply struct{ text string }
	var out reply
	calls := 0
	err := grpcresilience.UnaryClientInterceptor(retry(t, resilience.RetryConfig{}), grpcresilience.ClientConfig{Idempotent: onlyGet})(
		t.Context(), get, nil, &out, nil, func(_ context.Context, _ string, _, r any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			if calls++; calls == 1 {
				r.(*reply).text = "half"
				return status.Error(codes.Unavailable, "x")
			}
			r.(*reply).text += "whole"
			return nil
		})
	require.NoError(t, err)
	require.Equal(t, "whole", out.text)
}

func TestPolicyMustNotBeNil(t *testing.T) {
	require.Panics(t, func() { grpcresilience.UnaryClientInterceptor(nil, grpcresilience.ClientConfig{}) })
	require.Panics(t, func() { grpcresilience.StreamClientInterceptor(nil, grpcresilience.ClientConfig{}) })
}

func TestCallsAtATime(t *testing.T) {
	addr, _ := serve(t, "127.0.0.1:0", &shop{unary: func(_ context.Context, in string) (string, error) { return in, nil }})
	hedge := resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: 100 * time.Microsecond, Budget: resilience.Unlimited()}))
	conn := dial(t, addr, pipeline(t, retry(t, resilience.RetryConfig{}), breaker(t, 5), hedge), grpcresilience.ClientConfig{Idempotent: onlyGet})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			in := string(rune('a' + i))
			for range 50 {
				var header metadata.MD
				out, err := invoke(t.Context(), conn, get, in, grpc.Header(&header))
				if err != nil || out != in || len(header) == 0 {
					t.Errorf("got %q, %v, %v for %q", out, header, err, in)
				}
			}
		})
	}
	wg.Wait()
}
