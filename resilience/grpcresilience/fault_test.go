package grpcresilience_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/grpcresilience"
)

// proxy is the way to a server, which can be disturbed.
func proxy(t *testing.T, to string) *toxiproxy.Proxy {
	t.Helper()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "grpc", "127.0.0.1:0", to)
	require.NoError(t, p.Start())
	t.Cleanup(p.Stop)
	return p
}

func poison(t *testing.T, p *toxiproxy.Proxy, kind, attributes string) (heal func()) {
	t.Helper()
	_, err := p.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name":"t","stream":"downstream","type":%q,"attributes":%s}`, kind, attributes)))
	require.NoError(t, err)
	return func() { require.NoError(t, p.Toxics.RemoveToxic(context.Background(), "t")) }
}

// breakable is a listener whose connections can be reset.
type breakable struct {
	net.Listener
	mu    sync.Mutex
	conns []*net.TCPConn
}

func listen(t *testing.T) *breakable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return &breakable{Listener: l}
}

func (l *breakable) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, c.(*net.TCPConn))
	}
	return c, err
}

func (l *breakable) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	l.conns = nil
}

// The connection breaks when the server is at work: nobody knows what it has
// done.
func TestConnectionBreaksDuringACall(t *testing.T) {
	for method, calls := range map[string]int32{get: 2, charge: 1} {
		var handled atomic.Int32
		l := listen(t)
		serveOn(t, l, &shop{unary: func(ctx context.Context, in string) (string, error) {
			if handled.Add(1) == 1 {
				l.reset()
				<-ctx.Done()
			}
			return in, nil
		}})
		conn := dial(t, l.Addr().String(), retry(t, resilience.RetryConfig{}), grpcresilience.ClientConfig{Idempotent: onlyGet},
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		out, err := invoke(t.Context(), conn, method, "x")
		if calls == 1 {
			require.Equal(t, codes.Unavailable, status.Code(err), err)
			require.NotErrorIs(t, err, resilience.ErrRetriesExhausted)
		} else {
			require.NoError(t, err)
			require.Equal(t, "x", out)
		}
		require.Equal(t, calls, handled.Load(), method)
	}
}

func TestConnectionBreaksDuringAStream(t *testing.T) {
	l := listen(t)
	serveOn(t, l, &shop{stream: echo})
	b := breaker(t, 1)
	conn := dial(t, l.Addr().String(), pipeline(t, retry(t, resilience.RetryConfig{}), b), grpcresilience.ClientConfig{})
	s, err := conn.NewStream(t.Context(), chatDesc, chat)
	require.NoError(t, err)
	send(t, s, "x")
	_, err = receive(s)
	require.NoError(t, err)
	l.reset()
	_, err = receive(s)
	require.Equal(t, codes.Unavailable, status.Code(err), err)
	require.Equal(t, resilience.Open, b.State())
}

func TestServerIsKilledAndComesBack(t *testing.T) {
	service := &shop{unary: func(_ context.Context, in string) (string, error) { return in, nil }, stream: echo}
	addr, kill := serve(t, "127.0.0.1:0", service)
	r := retry(t, resilience.RetryConfig{Attempts: 1000, Backoff: resilience.Backoff{Base: 10 * time.Millisecond, Factor: 1}, Budget: resilience.Unlimited()})
	conn := dial(t, addr, r, grpcresilience.ClientConfig{})
	_, err := invoke(t.Context(), conn, charge, "1")
	require.NoError(t, err)
	kill()
	require.Eventually(t, func() bool { s := conn.GetState(); conn.Connect(); return s == connectivity.TransientFailure }, 30*time.Second, time.Millisecond)
	type result struct {
		text string
		err  error
	}
	results := make(chan result, 2)
	go func() {
		text, err := invoke(t.Context(), conn, charge, "2")
		results <- result{text, err}
	}()
	go func() {
		s, err := conn.NewStream(t.Context(), chatDesc, chat)
		if err != nil {
			results <- result{"", err}
			return
		}
		_ = s.SendMsg(wrapperspb.String("2"))
		text, err := receive(s)
		_ = s.CloseSend()
		_, _ = receive(s)
		results <- result{text, err}
	}()
	require.Eventually(t, func() bool { return r.Stats().Retries >= 4 }, 30*time.Second, time.Millisecond)
	serve(t, addr, service)
	for range 2 {
		require.Equal(t, result{"2", nil}, <-results, "nothing was sent, so even a charge is tried again")
	}
}

// A server that accepts connections and never answers.
func TestHalfOpenConnection(t *testing.T) {
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer hole.Close()
	r, b := retry(t, resilience.RetryConfig{Attempts: 2}), breaker(t, 4)
	conn := dial(t, hole.Addr().String(), pipeline(t, r, b, timeout(t, 50*time.Millisecond)), grpcresilience.ClientConfig{})
	_, err = invoke(t.Context(), conn, charge, "x")
	require.ErrorIs(t, err, resilience.ErrTimeout)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.EqualValues(t, 1, r.Stats().Retries, "gRPC had no connection to send it on")
	_, err = conn.NewStream(t.Context(), chatDesc, chat)
	require.ErrorIs(t, err, resilience.ErrTimeout)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.EqualValues(t, 2, r.Stats().Retries)
	require.Equal(t, resilience.Open, b.State())
}

// A connection dies without a sign after it has served well.
func TestConnectionFallsSilent(t *testing.T) {
	var handled atomic.Int32
	addr, _ := serve(t, "127.0.0.1:0", &shop{unary: func(_ context.Context, in string) (string, error) { handled.Add(1); return in, nil }})
	way := proxy(t, addr)
	r := retry(t, resilience.RetryConfig{Attempts: 2})
	conn := dial(t, way.Listen, pipeline(t, r, timeout(t, 200*time.Millisecond)), grpcresilience.ClientConfig{Idempotent: onlyGet})
	_, err := invoke(t.Context(), conn, charge, "1")
	require.NoError(t, err)
	heal := poison(t, way, "timeout", `{"timeout":0}`)
	_, err = invoke(t.Context(), conn, charge, "2")
	require.ErrorIs(t, err, resilience.ErrTimeout)
	require.EqualValues(t, 2, handled.Load(), "the server has done it, and it is not repeated")
	_, err = invoke(t.Context(), conn, get, "3")
	require.ErrorIs(t, err, resilience.ErrTimeout)
	require.EqualValues(t, 4, handled.Load())
	heal() // closes the connections
	require.Eventually(t, func() bool { _, err := invoke(t.Context(), conn, charge, "4"); return err == nil }, 30*time.Second, 10*time.Millisecond)
}

func TestSlowServer(t *testing.T) {
	addr, _ := serve(t, "127.0.0.1:0", &shop{unary: func(_ context.Context, in string) (string, error) { return in, nil }})
	way := proxy(t, addr)
	conn := dial(t, way.Listen, pipeline(t, timeout(t, 5*time.Second)), grpcresilience.ClientConfig{})
	poison(t, way, "latency", `{"latency":100}`)
	begun := time.Now()
	out, err := invoke(t.Context(), conn, charge, "x")
	require.NoError(t, err)
	require.Equal(t, "x", out)
	require.GreaterOrEqual(t, time.Since(begun), 100*time.Millisecond)
}

func TestServerAsksForAPause(t *testing.T) {
	var handled atomic.Int32
	addr, _ := serve(t, "127.0.0.1:0", &shop{unary: func(_ context.Context, in string) (string, error) {
		if handled.Add(1) == 1 {
			return "", withRetryInfo(codes.Unavailable, 150*time.Millisecond)
		}
		return in, nil
	}})
	conn := dial(t, addr, retry(t, resilience.RetryConfig{}), grpcresilience.ClientConfig{Idempotent: onlyGet})
	begun := time.Now()
	out, err := invoke(t.Context(), conn, get, "x")
	require.NoError(t, err)
	require.Equal(t, "x", out)
	require.GreaterOrEqual(t, time.Since(begun), 150*time.Millisecond)
}
