package httpresilience_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/httpresilience"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// arrival is a request as the server read it.
type arrival struct {
	method, body, client string
	header               http.Header
	whole                bool // the body arrived to its end
}

// server is a real server that records every request before it answers.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	arrivals []arrival
}

// serve starts a server whose handler is told the number of the request, from 1.
func serve(t testing.TB, handler func(n int, w http.ResponseWriter, r *http.Request)) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		s.mu.Lock()
		s.arrivals = append(s.arrivals, arrival{r.Method, string(body), r.RemoteAddr, r.Header.Clone(), err == nil})
		n := len(s.arrivals)
		s.mu.Unlock()
		handler(n, w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) requests() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival(nil), s.arrivals...)
}

// answer answers the first requests with the statuses, and the others with 200.
func answer(statuses ...int) func(int, http.ResponseWriter, *http.Request) {
	return func(n int, w http.ResponseWriter, _ *http.Request) {
		status := 200
		if n <= len(statuses) {
			status = statuses[n-1]
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, http.StatusText(status))
	}
}

// base returns a transport whose connections end with the test.
func base(t testing.TB) *http.Transport {
	b := &http.Transport{DisableCompression: true}
	t.Cleanup(b.CloseIdleConnections)
	return b
}

// client returns a client that sends through the policies.
func client(t testing.TB, cfg httpresilience.TransportConfig, policies ...resilience.Policy) *http.Client {
	t.Helper()
	if cfg.Base == nil {
		cfg.Base = base(t)
	}
	transport, err := httpresilience.NewTransport(resilience.Must(resilience.NewPipeline("test", policies...)), cfg)
	require.NoError(t, err)
	return &http.Client{Transport: transport}
}

// retry tries three times, with pauses that a test bears.
func retry() *resilience.Retry {
	return resilience.Must(resilience.NewRetry(resilience.RetryConfig{
		Backoff: resilience.Backoff{Base: time.Millisecond}, Budget: resilience.Unlimited(),
	}))
}

// slowRetry pauses for longer than a test takes: it must not come to that.
func slowRetry() *resilience.Retry {
	return resilience.Must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Backoff{Base: time.Hour, Max: time.Hour}}))
}

func timeout(after time.Duration) *resilience.Timeout {
	return resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: after}))
}

func breaker(failures int) *resilience.CircuitBreaker {
	return resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Failures: failures, OpenFor: time.Hour}))
}

func hedge(after time.Duration) *resilience.Hedge {
	return resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: after, Budget: resilience.Unlimited()}))
}

// request returns a request. Headers are pairs.
func request(t testing.TB, method, url string, body io.Reader, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// reply is a response that was read.
type reply struct {
	*http.Response
	text string
}

// do demands a response and reads it.
func do(t testing.TB, c *http.Client, r *http.Request) reply {
	t.Helper()
	resp, err := c.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return reply{resp, string(text)}
}

// bare hides what net/http would learn about a body from its type.
type bare struct{ io.Reader }

func opaque(s string) io.Reader { return bare{strings.NewReader(s)} }

// refused returns the URL of a port where nobody listens.
func refused(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return "http://" + l.Addr().String()
}

// eventually waits for a condition.
func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 30*time.Second, time.Millisecond)
}

func host(t testing.TB, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u.Host
}
