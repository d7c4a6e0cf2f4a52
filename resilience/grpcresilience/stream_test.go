package grpcresilience_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/grpcresilience"
)

func oneAtATime(t *testing.T) *resilience.Bulkhead {
	t.Helper()
	b, err := resilience.NewBulkhead(resilience.BulkheadConfig{Name: "streams", Concurrency: 1})
	require.NoError(t, err)
	return b
}

func requireFree(t *testing.T, b *resilience.Bulkhead) {
	t.Helper()
	require.Eventually(t, func() bool { return b.Stats().Running == 0 }, 30*time.Second, time.Millisecond, "the policy does not know that the stream has ended")
}

func echo(s grpc.ServerStream) error {
	for {
		text, err := receive(s)
		if err != nil {
			return nil //nolint:nilerr // the client has closed
		}
		if err := s.SendMsg(wrapperspb.String(text)); err != nil {
			return err
		}
	}
}

func TestStreamsOfEachKindEndWell(t *testing.T) {
	addr, _ := serve(t, "127.0.0.1:0", &shop{stream: func(s grpc.ServerStream) error {
		last := ""
		for {
			text, err := receive(s)
			if err != nil {
				return s.SendMsg(wrapperspb.String("got " + last))
			}
			last = text
		}
	}})
	b, bulkhead := breaker(t, 1), oneAtATime(t)
	conn := dial(t, addr, pipeline(t, retry(t, resilience.RetryConfig{}), b, bulkhead), grpcresilience.ClientConfig{})
	for method, desc := range map[string]*grpc.StreamDesc{watch: watchDesc, upload: uploadDesc, chat: chatDesc} {
		s, err := conn.NewStream(t.Context(), desc, method)
		require.NoError(t, err)
		require.Equal(t, 1, bulkhead.Stats().Running)
		send(t, s, "x")
		require.NoError(t, s.CloseSend())
		out, err := receive(s)
		require.NoError(t, err)
		require.Equal(t, "got x", out)
		if desc.ServerStreams {
			_, err = receive(s)
			require.Equal(t, io.EOF, err)
		}
		require.Zero(t, bulkhead.Stats().Running, "the end is known when RecvMsg returns")
		require.Equal(t, resilience.Closed, b.State())
	}
}

func TestBreakerCountsHowStreamsEnd(t *testing.T) {
	for _, c := range []struct {
		err   error
		opens bool
	}{
		{status.Error(codes.Unavailable, "x"), true},
		{status.Error(codes.Internal, "x"), true},
		{status.Error(codes.NotFound, "x"), false},
		{status.Error(codes.Canceled, "x"), false},
		{nil, false},
	} {
		var streams atomic.Int32
		addr, _ := serve(t, "127.0.0.1:0", &shop{stream: func(s grpc.ServerStream) error {
			streams.Add(1)
			require.NoError(t, s.SendMsg(wrapperspb.String("first")))
			return c.err
		}})
		b := breaker(t, 2)
		r := retry(t, resilience.RetryConfig{Attempts: 5, Nested: true, Backoff: resilience.Backoff{Base: time.Hour}})
		conn := dial(t, addr, pipeline(t, r, b), grpcresilience.ClientConfig{Idempotent: func(string) bool { return true }})
		for range 2 {
			s, err := conn.NewStream(t.Context(), chatDesc, chat)
			require.NoError(t, err)
			_, err = receive(s)
			require.NoError(t, err)
			_, err = receive(s)
			if c.err == nil {
				require.Equal(t, io.EOF, err)
			} else {
				require.Equal(t, status.Code(c.err), status.Code(err))
				require.Equal(t, resilience.Classify(grpcresilience.WithClass(c.err)), resilience.Classify(err))
			}
		}
		require.Equal(t, c.opens, b.State() == resilience.Open, "%v", c.err)
		require.EqualValues(t, 2, streams.Load(), "an open stream is not opened again")
		if c.opens {
			_, err := conn.NewStream(t.Context(), chatDesc, chat)
			require.ErrorIs(t, err, resilience.ErrOpen)
			require.Equal(t, codes.Unavailable, status.Code(err))
		}
	}
}

func TestTimeoutBoundsOnlyTheOpening(t *testing.T) {
	addr, _ := serve(t, "127.0.0.1:0", &shop{stream: func(s grpc.ServerStream) error {
		_ = echo(s)
		return status.Error(codes.Internal, "disk full")
	}})
	limit := timeout(t, 300*time.Millisecond)
	attemptOver := make(chan struct{})
	watcher := resilience.PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		context.AfterFunc(ctx, func() { close(attemptOver) })
		return fn(ctx)
	})
	conn := dial(t, addr, pipeline(t, limit, watcher), grpcresilience.ClientConfig{})
	s, err := conn.NewStream(t.Context(), chatDesc, chat)
	require.NoError(t, err)
	_, bounded := s.Context().Deadline()
	require.False(t, bounded, "the server must not be told the Timeout's deadline")
	<-attemptOver
	send(t, s, "late")
	out, err := receive(s)
	require.NoError(t, err)
	require.Equal(t, "late", out)
	require.NoError(t, s.CloseSend())
	_, err = receive(s)
	require.Equal(t, codes.Internal, status.Code(err))
	require.NotErrorIs(t, err, resilience.ErrTimeout)
	require.Zero(t, limit.Stats().TimedOut)
}

func TestTimeoutEndsASlowOpening(t *testing.T) {
	p := pipeline(t, retry(t, resilience.RetryConfig{Attempts: 2}), timeout(t, 20*time.Millisecond))
	opens := 0
	_, err := open(t.Context(), p, func(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
		opens++
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	})
	require.ErrorIs(t, err, resilience.ErrTimeout)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.Equal(t, 1, opens, "nobody said that the method is idempotent, nor gRPC that nothing was sent")
}

// open opens a stream with a made-up streamer.
func open(ctx context.Context, p resilience.Policy, streamer grpc.Streamer) (grpc.ClientStream, error) {
	return grpcresilience.StreamClientInterceptor(p, grpcresilience.ClientConfig{})(ctx, chatDesc, nil, chat, streamer)
}

func TestStreamsOfCallersThatLeave(t *testing.T) {
	addr, _ := serve(t, "127.0.0.1:0", &shop{stream: echo})
	for name, leave := range map[string]func(conn *grpc.ClientConn, cancel context.CancelFunc){
		"cancel": func(_ *grpc.ClientConn, cancel context.CancelFunc) { cancel() },
		"close":  func(conn *grpc.ClientConn, _ context.CancelFunc) { require.NoError(t, conn.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			b, bulkhead := breaker(t, 1), oneAtATime(t)
			conn, err := grpc.NewClient(addr, insecureOption, grpc.WithStreamInterceptor(
				grpcresilience.StreamClientInterceptor(pipeline(t, b, bulkhead, timeout(t, time.Hour)), grpcresilience.ClientConfig{})))
			require.NoError(t, err)
			defer conn.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s, err := conn.NewStream(ctx, chatDesc, chat)
			require.NoError(t, err)
			send(t, s, "x")
			_, err = receive(s)
			require.NoError(t, err)
			leave(conn, cancel)
			requireFree(t, bulkhead)
			require.Equal(t, resilience.Closed, b.State())
		})
	}
}

func TestDeadlineOfTheCallerBoundsTheStream(t *testing.T) {
	deadlines := make(chan bool, 1)
	addr, _ := serve(t, "127.0.0.1:0", &shop{stream: func(s grpc.ServerStream) error {
		_, ok := s.Context().Deadline()
		deadlines <- ok
		<-s.Context().Done()
		return s.Context().Err()
	}})
	b := breaker(t, 1)
	conn := dial(t, addr, pipeline(t, b), grpcresilience.ClientConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	s, err := conn.NewStream(ctx, chatDesc, chat)
	require.NoError(t, err)
	_, err = receive(s)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.True(t, <-deadlines, "the deadline travels")
	require.Equal(t, resilience.Open, b.State())
}

// An interceptor in between that drops the call options hides from us how a
// stream ends, except by what the caller receives or cancels.
func TestStreamWithoutOptions(t *testing.T) {
	addr, _ := serve(t, "127.0.0.1:0", &shop{stream: echo})
	bulkhead := oneAtATime(t)
	plain, err := grpc.NewClient(addr, insecureOption)
	require.NoError(t, err)
	defer plain.Close()
	for _, cancelled := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := open(ctx, bulkhead, func(ctx context.Context, desc *grpc.StreamDesc, _ *grpc.ClientConn, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
			return plain.NewStream(ctx, desc, method)
		})
		require.NoError(t, err)
		if cancelled {
			cancel()
		} else {
			require.NoError(t, s.CloseSend())
			_, err = receive(s)
			require.Equal(t, io.EOF, err)
		}
		requireFree(t, bulkhead)
		cancel()
	}
}

func TestPolicyThatHidesThatThereIsNoStream(t *testing.T) {
	fallback := resilience.Must(resilience.NewFallback(resilience.FallbackConfig{Do: func(context.Context, error) error { return nil }}))
	s, err := open(t.Context(), fallback, func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
		return nil, errors.New("x")
	})
	require.Nil(t, s)
	require.Equal(t, codes.Unavailable, status.Code(err))
}
