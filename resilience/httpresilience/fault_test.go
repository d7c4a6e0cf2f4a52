package httpresilience_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/httpresilience"
)

// wire is a server at the level of connections, for faults that net/http does
// not make.
type wire struct {
	URL      string
	mu       sync.Mutex
	arrivals []arrival
}

// listen starts a server that hands the nth connection to handle, with the first
// request on it, whose body has not been read.
func listen(t *testing.T, handle func(n int, conn *net.TCPConn, r *http.Request, w *wire)) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{URL: "http://" + l.Addr().String()}
	var conns sync.WaitGroup
	conns.Go(func() {
		for n := 1; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err == nil {
					handle(n, conn.(*net.TCPConn), r, w)
				}
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		conns.Wait()
	})
	return w
}

// read reads up to most bytes of the body and records the request.
func (w *wire) read(r *http.Request, most int64) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, most))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.arrivals = append(w.arrivals, arrival{method: r.Method, body: string(body)})
}

func (w *wire) requests() []arrival {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]arrival(nil), w.arrivals...)
}

// reset ends a connection with a RST.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

func ok(conn net.Conn) {
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

// silent waits until the client has gone.
func silent(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func TestFaultsBeforeTheResponse(t *testing.T) {
	const all = 1 << 40
	text := strings.Repeat("0123456789", 20_000)
	faults := map[string]struct {
		most int64 // that the server reads of a body
		do   func(conn *net.TCPConn)
	}{
		"reset in the request's body": {1000, reset},
		"reset":                       {all, reset},
		"closed":                      {all, func(c *net.TCPConn) { _ = c.Close() }},
		"half a status line":          {all, func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 20") }},
		"no answer":                   {all, func(c *net.TCPConn) { silent(c) }},
		"no answer to half a request": {1000, func(c *net.TCPConn) { silent(c) }},
	}
	for name, fault := range faults {
		for _, method := range []string{"PUT", "POST"} {
			t.Run(name+" "+method, func(t *testing.T) {
				w := listen(t, func(n int, conn *net.TCPConn, r *http.Request, w *wire) {
					if n < 3 {
						w.read(r, fault.most)
						fault.do(conn)
						return
					}
					w.read(r, all)
					ok(conn)
				})
				c := client(t, httpresilience.TransportConfig{MaxBody: 1 << 20}, retry(), timeout(200*time.Millisecond))
				body := opaque(text)
				if method == "POST" {
					body = strings.NewReader(text)
				}
				resp, err := c.Do(request(t, method, w.URL, body))
				if method == "POST" {
					require.Error(t, err)
					require.NotErrorIs(t, err, context.Canceled)
					require.NotContains(t, err.Error(), "retry")
					require.Len(t, w.requests(), 1, "it is never sent twice")
					return
				}
				require.NoError(t, err)
				defer resp.Body.Close()
				got := w.requests()
				require.Len(t, got, 3)
				for _, a := range got {
					require.True(t, strings.HasPrefix(text, a.body), "a body begins at its beginning")
				}
				require.True(t, got[2].body == text, "and is whole: %d bytes", len(got[2].body))
			})
		}
	}
}

func TestFaultTimeoutSaysSo(t *testing.T) {
	w := listen(t, func(_ int, conn *net.TCPConn, _ *http.Request, _ *wire) { silent(conn) })
	for _, method := range []string{"GET", "POST"} {
		limit, b := timeout(50*time.Millisecond), breaker(1)
		_, err := client(t, httpresilience.TransportConfig{}, b, limit).Do(request(t, method, w.URL, nil))
		var timedOut *resilience.TimeoutError
		require.ErrorAs(t, err, &timedOut)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 1, limit.Stats().TimedOut)
		require.Equal(t, resilience.Open, b.State())
	}
}

func TestFaultInTheResponsesBodyIsTheCallers(t *testing.T) {
	w := listen(t, func(_ int, conn *net.TCPConn, r *http.Request, w *wire) {
		w.read(r, 0)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
	})
	resp, err := client(t, httpresilience.TransportConfig{}, retry()).Do(request(t, "GET", w.URL, nil))
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, "half", string(text))
	require.Len(t, w.requests(), 1)
}

func TestFaultCallerCancels(t *testing.T) {
	reason := errors.New("the user went away")
	w := listen(t, func(_ int, conn *net.TCPConn, r *http.Request, w *wire) {
		w.read(r, 0)
		silent(conn)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		eventually(t, func() bool { return len(w.requests()) == 1 })
		cancel(reason)
	}()
	b := breaker(1)
	_, err := client(t, httpresilience.TransportConfig{}, retry(), b, timeout(time.Hour)).Do(request(t, "GET", w.URL, nil).WithContext(ctx))
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, reason)
	require.Equal(t, resilience.Cancelled, resilience.Classify(err))
	require.Equal(t, resilience.Closed, b.State())
	require.Len(t, w.requests(), 1)
}

// proxied returns the URL of a server by way of a proxy that can be disturbed.
func proxied(t *testing.T, to string) (string, *toxiproxy.Proxy) {
	t.Helper()
	srv := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := toxiproxy.NewProxy(srv, t.Name(), "127.0.0.1:0", host(t, to))
	require.NoError(t, p.Start())
	t.Cleanup(p.Stop)
	return "http://" + p.Listen, p
}

// TestFaultConnectionThatWentDead has a connection in the pool whose packets
// vanish: the attempt that gets it runs into its timeout, the next one has to be
// on another.
func TestFaultConnectionThatWentDead(t *testing.T) {
	s := serve(t, answer())
	url, proxy := proxied(t, s.URL)
	c := client(t, httpresilience.TransportConfig{}, retry(), timeout(200*time.Millisecond))
	do(t, c, request(t, "GET", url, nil))

	_, err := proxy.Toxics.AddToxicJson(strings.NewReader(`{"name":"hole","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`))
	require.NoError(t, err)
	_, err = c.Do(request(t, "POST", url, strings.NewReader("once")))
	require.ErrorIs(t, err, resilience.ErrTimeout)
	require.Len(t, s.requests(), 2, "it arrived, and was not sent again")
	_, err = c.Do(request(t, "GET", url, nil))
	require.ErrorIs(t, err, resilience.ErrTimeout)
	require.ErrorIs(t, err, resilience.ErrRetriesExhausted)
	require.Len(t, s.requests(), 5)

	require.NoError(t, proxy.Toxics.RemoveToxic(t.Context(), "hole"))
	require.Equal(t, 200, do(t, c, request(t, "GET", url, nil)).StatusCode)
}

func TestFaultServerThatComesBack(t *testing.T) {
	s := serve(t, answer())
	url, proxy := proxied(t, s.URL)
	listen := proxy.Listen
	patient := resilience.Must(resilience.NewRetry(resilience.RetryConfig{
		Attempts: 1000, Backoff: resilience.Backoff{Shape: resilience.Fixed, Base: 5 * time.Millisecond}, Budget: resilience.Unlimited(),
		Observer: func(e resilience.Event) {
			if e.Attempt == 5 && e.Kind == resilience.EventRetry {
				proxy.Listen = listen
				if err := proxy.Start(); err != nil {
					t.Error(err)
				}
			}
		},
	}))
	proxy.Stop()
	got := do(t, client(t, httpresilience.TransportConfig{}, patient), request(t, "POST", url, strings.NewReader("once")))
	require.Equal(t, 200, got.StatusCode)
	require.Len(t, s.requests(), 1)
}
