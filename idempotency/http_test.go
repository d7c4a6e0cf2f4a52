package idempotency_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
)

// reply is a response that was read.
type reply struct {
	*http.Response
	text string
}

// send makes a request to a real server. Headers are pairs.
func send(t testing.TB, method, url, body string, headers ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return reply{resp, string(text)}
}

func (r reply) replayed() bool { return r.Header.Get(idempotency.ReplayedHeader) == "true" }

// problem demands an error response of the kind.
func (r reply) problem(t testing.TB, status int, kind string) {
	t.Helper()
	require.Equal(t, status, r.StatusCode, r.text)
	require.Equal(t, "application/problem+json", r.Header.Get("Content-Type"))
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	require.NoError(t, json.Unmarshal([]byte(r.text), &p), r.text)
	require.Equal(t, status, p.Status)
	require.NotEmpty(t, p.Title)
	require.True(t, strings.HasSuffix(p.Type, "#"+kind), p.Type)
	require.Contains(t, r.Header.Get("Link"), "<"+p.Type+`>; rel="describedby"`)
	require.False(t, r.replayed())
}

// serve runs a handler behind the middleware.
func serve(t testing.TB, g *idempotency.Guard, c idempotency.HTTPConfig, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(g.HTTP(c)(h))
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		s.Close()
	})
	return s.URL
}

const keyName = idempotency.KeyHeader

func httpGuard(p idempotency.Policy) *idempotency.Guard { return newGuard(newProbe(), p) }

func TestHTTPReplaysTheStoredResponse(t *testing.T) {
	calls := 0
	url := serve(t, httpGuard(idempotency.Policy{}), idempotency.HTTPConfig{OmitHeaders: []string{"x-secret"}}, func(w http.ResponseWriter, r *http.Request) {
		calls++
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != `{"amount":42}` || r.ContentLength != 13 {
			t.Errorf("the handler reads %q, %v", body, err)
		}
		w.Header().Set("Location", "/charges/1")
		w.Header()["Vary"] = []string{"Accept", "Origin"}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Secret", "s")
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "s"})
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":`)
		_, _ = io.WriteString(w, `1}`)
		w.Header().Set("Too", "late")
	})
	first := send(t, "POST", url+"/charges?x=1", `{"amount":42}`, keyName, `"k-1"`)
	again := send(t, "POST", url+"/charges?x=1", `{"amount":42}`, keyName, `"k-1"`)
	bare := send(t, "POST", url+"/charges?x=1", `{"amount":42}`, keyName, `k-1`)
	require.Equal(t, 1, calls)
	require.False(t, first.replayed())
	require.NotEmpty(t, first.Header.Get("Set-Cookie"))
	require.Equal(t, "s", first.Header.Get("X-Secret"))
	for _, r := range []reply{again, bare} {
		require.True(t, r.replayed())
		require.Empty(t, r.Header.Get("Set-Cookie"), "credentials are not kept")
		require.Empty(t, r.Header.Get("X-Secret"))
	}
	for _, r := range []reply{first, again, bare} {
		require.Equal(t, 201, r.StatusCode)
		require.Equal(t, `{"id":1}`, r.text)
		require.Equal(t, "/charges/1", r.Header.Get("Location"))
		require.Equal(t, []string{"Accept", "Origin"}, r.Header.Values("Vary"))
		require.Equal(t, "application/json", r.Header.Get("Content-Type"))
		require.Empty(t, r.Header.Get("Too"))
		require.EqualValues(t, 8, r.ContentLength)
	}
}

func TestHTTPAnotherRequestWithTheSameKeyIs422(t *testing.T) {
	var calls atomic.Int32
	url := serve(t, httpGuard(idempotency.Policy{}), idempotency.HTTPConfig{}, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	require.Equal(t, 200, send(t, "POST", url+"/a?q=1", "x", keyName, "k").StatusCode)
	send(t, "POST", url+"/a?q=1", "y", keyName, "k").problem(t, 422, "key-reused")
	send(t, "POST", url+"/a?q=2", "x", keyName, "k").problem(t, 422, "key-reused")
	send(t, "POST", url+"/b?q=1", "x", keyName, "k").problem(t, 422, "key-reused")
	send(t, "PATCH", url+"/a?q=1", "x", keyName, "k").problem(t, 422, "key-reused")
	require.True(t, send(t, "POST", url+"/a?q=1", "x", keyName, "k").replayed())
	require.EqualValues(t, 1, calls.Load())
}

func TestHTTPInFlightIs409OrWaits(t *testing.T) {
	store := newProbe()
	begun, end := make(chan struct{}), make(chan struct{})
	handler := func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-end
		_, _ = io.WriteString(w, "done")
	}
	url := serve(t, newGuard(store, idempotency.Policy{}), idempotency.HTTPConfig{}, handler)
	never := func(http.ResponseWriter, *http.Request) { t.Error("called twice") }
	elsewhere := serve(t, newGuard(store, idempotency.Policy{}), idempotency.HTTPConfig{}, never)
	patient := serve(t, newGuard(store, idempotency.Policy{}), idempotency.HTTPConfig{Wait: time.Minute}, never)
	var wg sync.WaitGroup
	wg.Go(func() {
		if r := send(t, "POST", url, "x", keyName, "k"); r.text != "done" || r.replayed() {
			t.Errorf("the first got %q", r.text)
		}
	})
	<-begun
	for _, u := range []string{url, elsewhere} {
		r := send(t, "POST", u, "x", keyName, "k")
		r.problem(t, 409, "in-progress")
		require.Contains(t, []string{"1", "2", "3", "4", "5"}, r.Header.Get("Retry-After"))
		send(t, "POST", u, "other", keyName, "k").problem(t, 422, "key-reused")
	}
	wg.Go(func() {
		if r := send(t, "POST", patient, "x", keyName, "k"); r.text != "done" || !r.replayed() {
			t.Errorf("who waited got %q", r.text)
		}
	})
	close(end)
	wg.Wait()
}

func TestHTTPKeys(t *testing.T) {
	var calls atomic.Int32
	handler := func(http.ResponseWriter, *http.Request) { calls.Add(1) }
	optional := serve(t, httpGuard(idempotency.Policy{}), idempotency.HTTPConfig{}, handler)
	required := serve(t, httpGuard(idempotency.Policy{}), idempotency.HTTPConfig{Required: true, MaxKey: 10, Docs: "https://api.example.com/errors"}, handler)
	for range 2 {
		require.Equal(t, 200, send(t, "POST", optional, "x").StatusCode)
		require.Equal(t, 200, send(t, "GET", required, "", keyName, "k").StatusCode, "not a guarded method")
		require.Equal(t, 200, send(t, "PUT", required, "x").StatusCode)
	}
	require.EqualValues(t, 6, calls.Swap(0))
	send(t, "POST", required, "x").problem(t, 400, "key-missing")
	for _, bad := range [][]string{{""}, {`""`}, {`"a`}, {"a b"}, {"a,b"}, {"12345678901"}, {"a", "a"}, {`"a" b`}, {"schlüssel"}} {
		var headers []string
		for _, value := range bad {
			headers = append(headers, keyName, value)
		}
		r := send(t, "POST", required, "x", headers...)
		r.problem(t, 400, "key-invalid")
		require.Contains(t, r.text, "https://api.example.com/errors#key-invalid")
	}
	require.Zero(t, calls.Load())
}

func TestHTTPScopesKeepKeysOfTenantsApart(t *testing.T) {
	scope := func(r *http.Request) string { return r.Header.Get("X-Tenant") }
	url := serve(t, httpGuard(idempotency.Policy{}), idempotency.HTTPConfig{Scope: scope}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "for "+r.Header.Get("X-Tenant"))
	})
	for _, replayed := range []bool{false, true} {
		for _, tenant := range []string{"a", "b"} {
			r := send(t, "POST", url, "x", keyName, "k", "X-Tenant", tenant)
			require.Equal(t, "for "+tenant, r.text)
			require.Equal(t, replayed, r.replayed())
		}
	}
}

func TestHTTPStatusesThatAreNotKept(t *testing.T) {
	for status, keeps := range map[int]bool{
		200: true, 201: true, 204: true, 303: true, 400: true, 404: true, 409: true, 422: true,
		401: false, 403: false, 407: false, 408: false, 425: false, 429: false, 500: false, 502: false, 503: false,
	} {
		var calls atomic.Int32
		url := serve(t, httpGuard(idempotency.Policy{}), idempotency.HTTPConfig{}, func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			w.WriteHeader(status)
		})
		for i := range 3 {
			r := send(t, "POST", url, "x", keyName, "k", "Connection", "close")
			require.Equal(t, status, r.StatusCode)
			require.Equal(t, keeps && i > 0, r.replayed(), status)
		}
		require.Equal(t, keeps, calls.Load() == 1, status)
	}
}

func TestHTTPBodies(t *testing.T) {
	big := strings.Repeat("x", 100)
	var calls atomic.Int32
	url := serve(t, httpGuard(idempotency.Policy{MaxResult: 90}), idempotency.HTTPConfig{MaxBody: 100}, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.Copy(w, r.Body)
		_, _ = io.WriteString(w, "!")
	})
	send(t, "POST", url, big+"x", keyName, "k1").problem(t, 413, "body-too-large")
	require.Zero(t, calls.Load())
	r := send(t, "POST", url, big, keyName, "k2")
	require.Equal(t, big+"!", r.text, "too large to be kept, not to be sent")
	send(t, "POST", url, big, keyName, "k2").problem(t, 409, "response-not-kept")
	require.EqualValues(t, 1, calls.Load())
	require.Equal(t, "!", send(t, "POST", url, "", keyName, "k3").text)
	require.True(t, send(t, "POST", url, "", keyName, "k3").replayed())
}

func TestHTTPHandlerThatFlushesStreamsAndIsStored(t *testing.T) {
	seen := make(chan struct{})
	url := serve(t, httpGuard(idempotency.Policy{}), idempotency.HTTPConfig{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Part", "1")
		_, _ = io.WriteString(w, "first ")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-seen
		_, _ = io.WriteString(w, "second")
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("hijacked: %v", err)
		}
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("x"))
	require.NoError(t, err)
	req.Header.Set(keyName, "k")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	part := make([]byte, 6)
	_, err = io.ReadFull(resp.Body, part)
	require.NoError(t, err)
	require.Equal(t, "first ", string(part))
	close(seen)
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "second", string(rest))
	again := send(t, "POST", url, "x", keyName, "k")
	require.Equal(t, "first second", again.text)
	require.Equal(t, "1", again.Header.Get("X-Part"))
	require.True(t, again.replayed())
}

// The client leaves while the handler works: the effect is recorded, and the
// repetition gets the response.
func TestHTTPClientThatLeavesFindsItsResponse(t *testing.T) {
	begun, gone, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	url := serve(t, httpGuard(idempotency.Policy{}), idempotency.HTTPConfig{Wait: 30 * time.Second}, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-gone
		ended <- r.Context().Err()
		_, _ = io.WriteString(w, "charged")
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("x"))
	require.NoError(t, err)
	req.Header.Set(keyName, "k")
	go func() { <-begun; cancel() }()
	_, err = http.DefaultClient.Do(req)
	require.ErrorIs(t, err, context.Canceled)
	close(gone)
	require.NoError(t, <-ended)
	r := send(t, "POST", url, "x", keyName, "k")
	require.Equal(t, "charged", r.text)
	require.True(t, r.replayed())
}

func TestHTTPPanicReleasesTheKey(t *testing.T) {
	var calls atomic.Int32
	url := serve(t, httpGuard(idempotency.Policy{}), idempotency.HTTPConfig{}, func(http.ResponseWriter, *http.Request) {
		if calls.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("x"))
	require.NoError(t, err)
	req.Header.Set(keyName, "k")
	_, err = http.DefaultClient.Do(req)
	require.Error(t, err)
	r := send(t, "POST", url, "x", keyName, "k")
	require.Equal(t, 200, r.StatusCode)
	require.False(t, r.replayed())
}

func TestHTTPOldKeysAreRefused(t *testing.T) {
	var calls atomic.Int32
	config := idempotency.HTTPConfig{IssuedAt: func(_ *http.Request, key string) time.Time { return idempotency.TimeOfUUID(key) }}
	url := serve(t, httpGuard(idempotency.Policy{}), config, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	send(t, "POST", url, "x", keyName, "017F22E2-79B0-7CC3-98C4-DC0C0C07398F").problem(t, 422, "key-too-old")
	require.Zero(t, calls.Load())
	require.Equal(t, 200, send(t, "POST", url, "x", keyName, uuid.Must(uuid.NewV7()).String()).StatusCode)
	require.Equal(t, 200, send(t, "POST", url, "x", keyName, "order-7").StatusCode, "nobody knows")
}

func TestHTTPStoreThatFailsIs503AndTheHandlerDoesNotRun(t *testing.T) {
	store := newProbe()
	store.onClaim = func() error { return errors.New("secret.internal: connection refused") }
	handler := func(http.ResponseWriter, *http.Request) { t.Error("the handler ran without a claim") }
	r := send(t, "POST", serve(t, newGuard(store, idempotency.Policy{}), idempotency.HTTPConfig{}, handler), "x", keyName, "k")
	r.problem(t, 503, "unavailable")
	require.NotContains(t, r.text, "secret")
	require.Equal(t, "1", r.Header.Get("Retry-After"))
	for _, g := range []*idempotency.Guard{nil, newGuard(nil, idempotency.Policy{})} {
		send(t, "POST", serve(t, g, idempotency.HTTPConfig{}, handler), "x", keyName, "k").problem(t, 503, "unavailable")
	}
}

func TestHTTPEffectIsAnsweredAlsoIfItCanNotBeRecorded(t *testing.T) {
	store := newProbe()
	store.onComplete = func() error { return errors.New("down") }
	url := serve(t, newGuard(store, idempotency.Policy{Lease: 50 * time.Millisecond}), idempotency.HTTPConfig{}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "charged")
	})
	require.Equal(t, "charged", send(t, "POST", url, "x", keyName, "k").text)
}

// Who was overtaken does not answer: the other one's response counts.
func TestHTTPLostClaimIs409(t *testing.T) {
	store := newProbe()
	store.onComplete = func() error { return idempotency.ErrLost }
	url := serve(t, newGuard(store, idempotency.Policy{}), idempotency.HTTPConfig{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Mine", "1")
		_, _ = io.WriteString(w, "mine")
	})
	r := send(t, "POST", url, "x", keyName, "k")
	r.problem(t, 409, "in-progress")
	require.Empty(t, r.Header.Get("X-Mine"))
}

func TestHTTPHeadersOfOuterMiddlewareAreTheirs(t *testing.T) {
	var n atomic.Int32
	inner := httpGuard(idempotency.Policy{}).HTTP(idempotency.HTTPConfig{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Del("X-Removed")
		w.Header().Set("X-Inner", "i")
	}))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", string('0'+n.Add(1)))
		w.Header().Set("X-Removed", "r")
		inner.ServeHTTP(w, r)
	}))
	defer s.Close()
	defer http.DefaultClient.CloseIdleConnections()
	first, again := send(t, "POST", s.URL, "x", keyName, "k"), send(t, "POST", s.URL, "x", keyName, "k")
	require.Equal(t, []string{"1", "2"}, []string{first.Header.Get("X-Request-Id"), again.Header.Get("X-Request-Id")})
	require.Empty(t, first.Header.Get("X-Removed"))
	require.Equal(t, "i", again.Header.Get("X-Inner"))
	require.True(t, again.replayed())
}
