package httpresilience_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/httpresilience"
)

func TestTransportRetriesIdempotentRequests(t *testing.T) {
	for _, c := range []struct {
		method  string
		headers []string
		sent    int
	}{
		{method: "GET", sent: 3}, {method: "HEAD", sent: 3}, {method: "OPTIONS", sent: 3}, {method: "TRACE", sent: 3},
		{method: "PUT", sent: 3}, {method: "DELETE", sent: 3},
		{method: "POST", sent: 1}, {method: "PATCH", sent: 1}, {method: "PURGE", sent: 1},
		{method: "POST", headers: []string{"Idempotency-Key", "k"}, sent: 3},
		{method: "PATCH", headers: []string{"X-Idempotency-Key", "k"}, sent: 3},
	} {
		t.Run(c.method+strings.Join(c.headers, " "), func(t *testing.T) {
			s := serve(t, answer(503, 502))
			got := do(t, client(t, httpresilience.TransportConfig{}, retry()), request(t, c.method, s.URL, nil, c.headers...))
			require.Len(t, s.requests(), c.sent)
			if c.sent == 1 {
				require.Equal(t, 503, got.StatusCode, "the caller gets the one response")
				require.Equal(t, "Service Unavailable", got.text)
			} else {
				require.Equal(t, 200, got.StatusCode)
			}
		})
	}
}

func TestTransportReturnsTheLastResponse(t *testing.T) {
	s := serve(t, answer(500, 502, 504, 503))
	r := request(t, "GET", s.URL, nil)
	got := do(t, client(t, httpresilience.TransportConfig{}, retry()), r)
	require.Equal(t, 504, got.StatusCode)
	require.Equal(t, "Gateway Timeout", got.text)
	require.Equal(t, r, got.Request)
	require.Len(t, s.requests(), 3)
}

func TestTransportTakesOtherStatusesForAnswers(t *testing.T) {
	b := breaker(1)
	for _, status := range []int{204, 301, 400, 401, 404, 409, 501, 505} {
		s := serve(t, answer(status))
		got := do(t, client(t, httpresilience.TransportConfig{}, retry(), b), request(t, "GET", s.URL, nil))
		require.Equal(t, status, got.StatusCode)
		require.Len(t, s.requests(), 1)
	}
	require.Equal(t, resilience.Closed, b.State())
}

func TestTransportRetryableAndClassifyAreTheUsers(t *testing.T) {
	s := serve(t, answer(404, 404))
	c := client(t, httpresilience.TransportConfig{
		Retryable: func(r *http.Request) bool { return r.URL.Path == "/search" },
		Classify: func(resp *http.Response) resilience.Class {
			if resp.StatusCode == http.StatusNotFound {
				return resilience.Transient
			}
			return resilience.Permanent
		},
	}, retry())
	require.Equal(t, 404, do(t, c, request(t, "GET", s.URL, nil)).StatusCode)
	require.Len(t, s.requests(), 1)
	require.Equal(t, 200, do(t, c, request(t, "POST", s.URL+"/search", strings.NewReader("q"))).StatusCode)
	require.Len(t, s.requests(), 3)
}

func TestTransportDoesNotPauseForARequestThatIsNotSentAgain(t *testing.T) {
	s := serve(t, answer(503))
	r := slowRetry()
	require.Equal(t, 503, do(t, client(t, httpresilience.TransportConfig{}, r), request(t, "POST", s.URL, strings.NewReader("x"))).StatusCode)
	require.Len(t, s.requests(), 1)
	require.Zero(t, r.Stats().Retries)
}

func TestTransportSendsOnceWhateverThePolicyDoes(t *testing.T) {
	nested := resilience.Must(resilience.NewRetry(resilience.RetryConfig{
		Backoff: resilience.Backoff{Base: time.Millisecond}, Nested: true, Budget: resilience.Unlimited(),
	}))
	stubborn := resilience.PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		_ = fn(ctx)
		_ = fn(ctx)
		return fn(ctx)
	})
	for name, p := range map[string]resilience.Policy{"nested retry": nested, "other policy": stubborn} {
		t.Run(name, func(t *testing.T) {
			b := breaker(2)
			s := serve(t, answer(500, 200))
			c := client(t, httpresilience.TransportConfig{}, p, b)
			require.Equal(t, 500, do(t, c, request(t, "POST", s.URL, nil)).StatusCode)
			require.Len(t, s.requests(), 1)
			require.Equal(t, resilience.Closed, b.State(), "what was not sent does not count")

			require.Equal(t, 200, do(t, c, request(t, "POST", s.URL, nil)).StatusCode)
			require.Len(t, s.requests(), 2)
		})
	}
}

func TestTransportCountsRequestsThatAreNotSentAgain(t *testing.T) {
	b := breaker(3)
	s := serve(t, answer(500, 500, 500))
	c := client(t, httpresilience.TransportConfig{}, retry(), b)
	for range 3 {
		require.Equal(t, 500, do(t, c, request(t, "POST", s.URL, strings.NewReader("x"))).StatusCode)
	}
	require.Equal(t, resilience.Open, b.State())
	_, err := c.Do(request(t, "POST", s.URL, strings.NewReader("x")))
	require.ErrorIs(t, err, resilience.ErrOpen)
	require.True(t, resilience.IsRejected(err))
	require.Len(t, s.requests(), 3)
}

// closing notes that it was closed.
type closing struct {
	io.Reader
	closed atomic.Int32
}

func (c *closing) Close() error { c.closed.Add(1); return nil }

func TestTransportClosesTheBodyOfACallThatWasTurnedAway(t *testing.T) {
	b := breaker(1)
	b.Isolate()
	for _, method := range []string{"POST", "PUT"} {
		body := &closing{Reader: strings.NewReader("x")}
		_, err := client(t, httpresilience.TransportConfig{}, b).Do(request(t, method, "http://127.0.0.1:1", body))
		require.ErrorIs(t, err, resilience.ErrOpen)
		require.Positive(t, body.closed.Load())
	}
}

func TestTransportReturnsTheResponseWhenTheNextAttemptIsTurnedAway(t *testing.T) {
	s := serve(t, answer(503))
	got := do(t, client(t, httpresilience.TransportConfig{}, retry(), breaker(1)), request(t, "GET", s.URL, nil))
	require.Equal(t, 503, got.StatusCode)
	require.Equal(t, "Service Unavailable", got.text)
	require.Len(t, s.requests(), 1)
}

func TestTransportRefusedConnectionsCarryNothing(t *testing.T) {
	closed := host(t, refused(t))
	for name, body := range map[string]io.Reader{"no body": nil, "GetBody": strings.NewReader("abc")} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, answer())
			var dials atomic.Int32
			b := base(t)
			b.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if dials.Add(1) < 3 {
					addr = closed
				}
				return new(net.Dialer).DialContext(ctx, network, addr)
			}
			got := do(t, client(t, httpresilience.TransportConfig{Base: b}, retry()), request(t, "POST", s.URL, body))
			require.Equal(t, 200, got.StatusCode)
			require.Len(t, s.requests(), 1)
			require.True(t, body == nil || s.requests()[0].body == "abc")
		})
	}
}

func TestTransportRefusedWithABodyThatIsThereOnce(t *testing.T) {
	r := slowRetry()
	_, err := client(t, httpresilience.TransportConfig{}, r).Do(request(t, "POST", refused(t), opaque("abc")))
	var dial *net.OpError
	require.ErrorAs(t, err, &dial)
	require.Equal(t, "dial", dial.Op)
	require.Zero(t, r.Stats().Retries)
}

func TestTransportErrorsAreThoseOfThePolicy(t *testing.T) {
	_, err := client(t, httpresilience.TransportConfig{}, retry()).Do(request(t, "GET", refused(t), nil))
	var gaveUp *resilience.RetryError
	require.ErrorAs(t, err, &gaveUp)
	require.Equal(t, 3, gaveUp.Attempts)
	require.ErrorContains(t, err, "connection refused")
}

func TestTransportFallback(t *testing.T) {
	instead := errors.New("the shop is closed")
	fallback := func(err error) resilience.Policy {
		return resilience.Must(resilience.NewFallback(resilience.FallbackConfig{Do: func(context.Context, error) error { return err }}))
	}
	t.Run("another error", func(t *testing.T) {
		s := serve(t, answer(503))
		_, err := client(t, httpresilience.TransportConfig{}, fallback(instead)).Do(request(t, "GET", s.URL, nil))
		require.ErrorIs(t, err, instead)
		var status *httpresilience.StatusError
		require.ErrorAs(t, err, &status)
		require.Equal(t, 503, status.Status)
	})
	t.Run("no error, a response", func(t *testing.T) {
		s := serve(t, answer(503))
		got := do(t, client(t, httpresilience.TransportConfig{}, fallback(nil)), request(t, "GET", s.URL, nil))
		require.Equal(t, "Service Unavailable", got.text)
	})
	t.Run("no error, no response", func(t *testing.T) {
		_, err := client(t, httpresilience.TransportConfig{}, fallback(nil)).Do(request(t, "GET", refused(t), nil))
		require.ErrorContains(t, err, "connection refused")
	})
	t.Run("no attempt", func(t *testing.T) {
		b := breaker(1)
		b.Isolate()
		_, err := client(t, httpresilience.TransportConfig{}, fallback(nil), b).Do(request(t, "GET", refused(t), nil))
		require.ErrorContains(t, err, "without a response")
	})
}

func TestTransportReusesTheConnectionOfSupersededResponses(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 32<<10)
	s := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write(long)
		}
	})
	require.Equal(t, 200, do(t, client(t, httpresilience.TransportConfig{}, retry()), request(t, "GET", s.URL, nil)).StatusCode)
	got := s.requests()
	require.Len(t, got, 3)
	require.Equal(t, got[0].client, got[1].client)
	require.Equal(t, got[0].client, got[2].client)
}

func TestTransportDoesNotWaitForTheBodyOfASupersededResponse(t *testing.T) {
	gone := make(chan struct{})
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n > 1 {
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	require.Equal(t, 200, do(t, client(t, httpresilience.TransportConfig{}, retry()), request(t, "GET", s.URL, nil)).StatusCode)
	<-gone
}

func TestNewTransportRefusesNoPolicy(t *testing.T) {
	_, err := httpresilience.NewTransport(nil, httpresilience.TransportConfig{})
	require.ErrorContains(t, err, "policy")
}

func TestTransportClosesIdleConnectionsOfItsBase(t *testing.T) {
	s := serve(t, answer())
	c := client(t, httpresilience.TransportConfig{Base: &http.Transport{}})
	do(t, c, request(t, "GET", s.URL, nil))
	c.CloseIdleConnections() // or TestMain finds the connection
}

// baseFunc is a function as a base.
type baseFunc func(*http.Request) (*http.Response, error)

func (f baseFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestTransportResponseThatComesTooLate has a base that answers in spite of its
// context's end, with a body that can't be read any more.
func TestTransportResponseThatComesTooLate(t *testing.T) {
	body := &closing{Reader: strings.NewReader("late")}
	c := client(t, httpresilience.TransportConfig{Base: baseFunc(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return &http.Response{StatusCode: http.StatusOK, Body: body}, nil
	})}, timeout(10*time.Millisecond))
	_, err := c.Do(request(t, "GET", "http://x", nil))
	require.ErrorIs(t, err, resilience.ErrTimeout)
	require.EqualValues(t, 1, body.closed.Load())
}

// TestTransportBodyThatWasReadMayHaveLeft has a base that reads the body before it
// finds that there is no connection, as one that is itself a client might.
func TestTransportBodyThatWasReadMayHaveLeft(t *testing.T) {
	calls := 0
	c := client(t, httpresilience.TransportConfig{Base: baseFunc(func(r *http.Request) (*http.Response, error) {
		calls++
		_, _ = io.Copy(io.Discard, r.Body)
		return nil, &net.OpError{Op: "dial", Err: io.ErrUnexpectedEOF}
	})}, retry())
	_, err := c.Do(request(t, "POST", "http://x", strings.NewReader("abc")))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, 1, calls)
}

func TestTransportCallerCancelsDuringThePause(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, answer(503))
	patient := resilience.Must(resilience.NewRetry(resilience.RetryConfig{
		Backoff: resilience.Backoff{Base: time.Hour, Max: time.Hour}, Observer: func(resilience.Event) { cancel() },
	}))
	_, err := client(t, httpresilience.TransportConfig{}, patient).Do(request(t, "GET", s.URL, nil).WithContext(ctx))
	var failed *url.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, context.Canceled, failed.Err, "not the response that is left over")
}
