package httpresilience_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/httpresilience"
)

// shed runs a handler behind the middleware on a real server and returns its URL.
func shed(t testing.TB, cfg httpresilience.MiddlewareConfig, p resilience.Policy, h http.HandlerFunc) string {
	t.Helper()
	m, err := httpresilience.NewMiddleware(p, cfg)
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(m(h))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func plain(t testing.TB) *http.Client { return &http.Client{Transport: base(t)} }

// problem demands an error response of the kind.
func (r reply) problem(t testing.TB, status int, kind, after string) {
	t.Helper()
	require.Equal(t, status, r.StatusCode, r.text)
	require.Equal(t, "application/problem+json", r.Header.Get("Content-Type"))
	require.Equal(t, after, r.Header.Get("Retry-After"))
	var p struct {
		Type, Title string
		Status      int
	}
	require.NoError(t, json.Unmarshal([]byte(r.text), &p), r.text)
	require.Equal(t, status, p.Status)
	require.NotEmpty(t, p.Title)
	require.True(t, strings.HasSuffix(p.Type, "#"+kind), p.Type)
	require.Contains(t, r.Header.Get("Link"), "<"+p.Type+`>; rel="describedby"`)
	require.NotContains(t, r.text, "secret", "names of policies are not for clients")
}

func TestMiddlewareTurnsAway(t *testing.T) {
	isolated := resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "secret", Failures: 1, OpenFor: 90 * time.Second}))
	isolated.Isolate()
	rejecting := func(err error) resilience.Policy {
		return resilience.PolicyFunc(func(context.Context, func(context.Context) error) error { return err })
	}
	for name, c := range map[string]struct {
		policy      resilience.Policy
		status      int
		kind, after string
	}{
		"breaker":       {isolated, 503, "unavailable", "1"},
		"bulkhead":      {rejecting(&resilience.RejectedError{Policy: "secret", Reason: resilience.ErrBulkheadFull}), 503, "overloaded", "1"},
		"adaptive":      {rejecting(&resilience.RejectedError{Policy: "secret", Reason: resilience.ErrOverloaded, After: 1001 * time.Millisecond}), 503, "overloaded", "2"},
		"rate limiter":  {rejecting(&resilience.RejectedError{Policy: "secret", Reason: resilience.ErrRateLimited, After: time.Minute}), 429, "rate-limited", "60"},
		"another error": {rejecting(errors.New("secret")), 503, "unavailable", ""},
		"no error":      {rejecting(nil), 503, "unavailable", ""},
	} {
		t.Run(name, func(t *testing.T) {
			url := shed(t, httpresilience.MiddlewareConfig{}, c.policy, func(http.ResponseWriter, *http.Request) { t.Error("called") })
			do(t, plain(t), request(t, "POST", url, strings.NewReader("x"))).problem(t, c.status, c.kind, c.after)
			require.Empty(t, do(t, plain(t), request(t, "HEAD", url, nil)).text)
		})
	}
}

func TestMiddlewareShedsLoad(t *testing.T) {
	full := resilience.Must(resilience.NewBulkhead(resilience.BulkheadConfig{Concurrency: 1}))
	begun, end := make(chan struct{}), make(chan struct{})
	url := shed(t, httpresilience.MiddlewareConfig{Docs: "https://example.com/problems"}, full, func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-end
	})
	var first sync.WaitGroup
	first.Go(func() {
		resp, err := plain(t).Get(url)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Error(resp, err)
		} else {
			resp.Body.Close()
		}
	})
	<-begun
	got := do(t, plain(t), request(t, "GET", url, nil))
	got.problem(t, 503, "overloaded", got.Header.Get("Retry-After"))
	require.Contains(t, got.text, "https://example.com/problems#overloaded")
	close(end)
	first.Wait()
}

func TestMiddlewareCountsStatusesAndPanics(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		opens   bool
	}{
		"500":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, true},
		"501":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotImplemented) }, true},
		"panic":   {func(http.ResponseWriter, *http.Request) { panic("a bug") }, true},
		"abort":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		"404":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, false},
		"429":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, false},
		"nothing": {func(http.ResponseWriter, *http.Request) {}, false},
		"early hints": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
			w.WriteHeader(http.StatusInternalServerError) // superfluous
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := breaker(1)
			url := shed(t, httpresilience.MiddlewareConfig{}, b, c.handler)
			resp, err := plain(t).Get(url)
			if err == nil {
				resp.Body.Close()
			}
			require.Equal(t, name == "panic" || name == "abort", err != nil, "a panic goes on: %v", err)
			eventually(t, func() bool { return (b.State() == resilience.Open) == c.opens })
		})
	}
}

func TestMiddlewareDoesNotCountClientsThatLeave(t *testing.T) {
	for name, fail := range map[string]func(http.ResponseWriter){
		"500":     func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"abort":   func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"nothing": func(http.ResponseWriter) {},
	} {
		t.Run(name, func(t *testing.T) {
			b, begun := breaker(1), make(chan struct{})
			done := make(chan error, 1)
			watch := resilience.PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
				err := fn(ctx)
				done <- err
				return err
			})
			pipeline := resilience.Must(resilience.NewPipeline("", b, watch))
			url := shed(t, httpresilience.MiddlewareConfig{}, pipeline, func(w http.ResponseWriter, r *http.Request) {
				close(begun)
				<-r.Context().Done()
				fail(w)
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-begun; cancel() }()
			_, err := plain(t).Do(request(t, "GET", url, nil).WithContext(ctx))
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, resilience.Cancelled, resilience.Classify(<-done))
			require.Equal(t, resilience.Closed, b.State())
		})
	}
}

func TestMiddlewareTimeout(t *testing.T) {
	t.Run("nothing was written", func(t *testing.T) {
		limit := timeout(20 * time.Millisecond)
		url := shed(t, httpresilience.MiddlewareConfig{}, limit, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("X-Half-Done", "1")
			<-r.Context().Done()
		})
		got := do(t, plain(t), request(t, "GET", url, nil))
		got.problem(t, 503, "timeout", "")
		require.Empty(t, got.Header.Get("X-Half-Done"))
		require.EqualValues(t, 1, limit.Stats().TimedOut)
	})
	t.Run("the handler answers", func(t *testing.T) {
		url := shed(t, httpresilience.MiddlewareConfig{}, timeout(20*time.Millisecond), func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			http.Error(w, "my own words", http.StatusGatewayTimeout)
		})
		got := do(t, plain(t), request(t, "GET", url, nil))
		require.Equal(t, 504, got.StatusCode)
		require.Equal(t, "my own words\n", got.text)
	})
	t.Run("the handler takes no notice", func(t *testing.T) {
		url := shed(t, httpresilience.MiddlewareConfig{}, timeout(20*time.Millisecond), func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			_, _ = io.WriteString(w, "late")
		})
		require.Equal(t, "late", do(t, plain(t), request(t, "GET", url, nil)).text)
	})
}

func TestMiddlewareNeverCallsAHandlerTwice(t *testing.T) {
	for name, p := range map[string]resilience.Policy{"retry": retry(), "hedge": hedge(time.Second)} {
		for _, p := range []resilience.Policy{p, resilience.Must(resilience.NewPipeline("", timeout(time.Second), p))} {
			_, err := httpresilience.NewMiddleware(p, httpresilience.MiddlewareConfig{})
			require.ErrorContains(t, err, name)
		}
	}
	_, err := httpresilience.NewMiddleware(nil, httpresilience.MiddlewareConfig{})
	require.Error(t, err)

	r := retry()
	hidden := resilience.PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error { return r.Do(ctx, fn) })
	var calls atomic.Int32
	url := shed(t, httpresilience.MiddlewareConfig{}, hidden, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	})
	require.Equal(t, 500, do(t, plain(t), request(t, "GET", url, nil)).StatusCode)
	require.EqualValues(t, 1, calls.Load())
}

func TestMiddlewareKeepsWhatTheWriterCan(t *testing.T) {
	none := resilience.Must(resilience.NewPipeline(""))
	t.Run("flush", func(t *testing.T) {
		read := make(chan struct{})
		url := shed(t, httpresilience.MiddlewareConfig{}, none, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "a")
			w.(http.Flusher).Flush()
			<-read
			_, _ = io.WriteString(w, "b")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-read
		})
		resp, err := plain(t).Do(request(t, "GET", url, nil))
		require.NoError(t, err)
		defer resp.Body.Close()
		one := make([]byte, 1)
		for _, want := range []string{"a", "b"} {
			_, err = io.ReadFull(resp.Body, one)
			require.NoError(t, err)
			require.Equal(t, want, string(one))
			read <- struct{}{}
		}
	})
	t.Run("hijack", func(t *testing.T) {
		done := make(chan error, 1)
		watch := resilience.PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
			err := fn(ctx)
			done <- err
			return err
		})
		url := shed(t, httpresilience.MiddlewareConfig{}, resilience.Must(resilience.NewPipeline("", timeout(20*time.Millisecond), watch)), func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			<-r.Context().Done()
			_, _ = io.WriteString(conn, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})
		require.Equal(t, 202, do(t, plain(t), request(t, "GET", url, nil)).StatusCode)
		require.NoError(t, <-done, "there was an answer, on the connection itself")
	})
	t.Run("deadlines", func(t *testing.T) {
		url := shed(t, httpresilience.MiddlewareConfig{}, none, func(w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
		})
		require.Equal(t, 200, do(t, plain(t), request(t, "GET", url, nil)).StatusCode)
	})
	t.Run("file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("x", 100_000)), 0o600))
		url := shed(t, httpresilience.MiddlewareConfig{}, none, func(w http.ResponseWriter, r *http.Request) {
			if _, ok := w.(io.ReaderFrom); !ok {
				t.Error("no ReaderFrom")
			}
			http.ServeFile(w, r, path)
		})
		require.Len(t, do(t, plain(t), request(t, "GET", url, nil)).text, 100_000)
	})
	t.Run("bufio", func(t *testing.T) {
		url := shed(t, httpresilience.MiddlewareConfig{}, none, func(w http.ResponseWriter, _ *http.Request) {
			b := bufio.NewWriter(w)
			_, _ = b.WriteString("buffered")
			_ = b.Flush()
		})
		require.Equal(t, "buffered", do(t, plain(t), request(t, "GET", url, nil)).text)
	})
}
