package httpresilience_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/httpresilience"
)

// fate is what becomes of an attempt.
type fate struct {
	refused bool
	reads   int // bytes of the body that are read before anything else happens
	takes   time.Duration
	status  int // 0: the connection breaks
}

// fates is a base whose attempts go as was drawn, the last one for all others.
type fates struct {
	all []fate

	mu    sync.Mutex
	began int
	sent  []string // bodies as far as they were read, of attempts that were not refused
	whole []bool
	open  int // bodies of responses
}

var errRefused = &net.OpError{Op: "dial", Err: errors.New("connection refused")}

func (f *fates) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	fate := f.all[min(f.began, len(f.all)-1)]
	f.began++
	f.mu.Unlock()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	if fate.refused {
		return nil, errRefused
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(fate.reads)))
	whole := err == nil && len(body) < fate.reads
	f.mu.Lock()
	f.sent = append(f.sent, string(body))
	f.whole = append(f.whole, whole)
	f.mu.Unlock()
	select {
	case <-time.After(fate.takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if fate.status == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open++
	return &http.Response{StatusCode: fate.status, Body: &counted{strings.NewReader("answer"), f, false}}, nil
}

// counted is the body of a response.
type counted struct {
	io.Reader
	of     *fates
	closed bool
}

func (c *counted) Close() error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.of.open--
	}
	return nil
}

func drawFate(t *rapid.T) fate {
	return fate{
		refused: rapid.IntRange(0, 3).Draw(t, "refused") == 0,
		reads:   rapid.SampledFrom([]int{0, 3, 1 << 20}).Draw(t, "reads"),
		takes:   time.Duration(rapid.IntRange(0, 6).Draw(t, "takes")) * 50 * time.Millisecond, // so that attempts end at the same time
		status:  rapid.SampledFrom([]int{0, 200, 404, 429, 500, 503}).Draw(t, "status"),
	}
}

func drawPolicies(t *rapid.T) []resilience.Policy {
	all := []resilience.Policy{
		timeout(time.Second),
		resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: 4, Nested: rapid.Bool().Draw(t, "nested"), Budget: resilience.Unlimited()})),
		breaker(3),
		resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: 100 * time.Millisecond, Attempts: 3, Budget: resilience.Unlimited()})),
		timeout(250 * time.Millisecond),
	}
	var some []resilience.Policy
	for _, p := range all {
		if rapid.Bool().Draw(t, "with") {
			some = append(some, p)
		}
	}
	return some
}

// drawRequest returns a request, the body it has, and whether that may be sent
// more than once.
func drawRequest(t *rapid.T) (req *http.Request, text string, again bool) {
	method := rapid.SampledFrom([]string{"GET", "PUT", "POST"}).Draw(t, "method")
	var body io.Reader
	text = rapid.SampledFrom([]string{"", "0123456789", strings.Repeat("x", 100)}).Draw(t, "text")
	stream := rapid.Bool().Draw(t, "stream")
	switch {
	case text == "":
	case stream:
		body = opaque(text)
	default:
		body = strings.NewReader(text)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, "http://x", body)
	require.NoError(t, err)
	return req, text, method != "POST" && (!stream || len(text) < maxBody)
}

const maxBody = 50

// TestTransportUnderAnyPolicyAndFault draws requests, policies and faults, and
// looks at what must hold for all of them.
func TestTransportUnderAnyPolicyAndFault(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := &fates{all: rapid.SliceOfN(rapid.Custom(drawFate), 1, 6).Draw(rt, "fates")}
		pipeline := resilience.Must(resilience.NewPipeline("", drawPolicies(rt)...))
		transport := resilience.Must(httpresilience.NewTransport(pipeline, httpresilience.TransportConfig{Base: f, MaxBody: maxBody}))
		req, text, again := drawRequest(rt)
		limit := time.Duration(rapid.IntRange(1, 2000).Draw(rt, "limit")) * time.Millisecond

		var got, openThen int
		var err error
		synctest.Test(t, func(*testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			var resp *http.Response
			if resp, err = transport.RoundTrip(req.WithContext(ctx)); err != nil {
				return
			}
			openThen = f.open
			answer, _ := io.ReadAll(resp.Body)
			got = len(answer)
			_ = resp.Body.Close()
		})
		if err == nil {
			require.Equal(rt, 1, openThen, "only the response of the caller is open")
			require.Equal(rt, len("answer"), got)
		}
		require.Zero(rt, f.open, "all responses are closed")
		if !again {
			require.LessOrEqual(rt, len(f.sent), 1, "what must not be sent twice is not")
		}
		for i, sent := range f.sent {
			require.True(rt, strings.HasPrefix(text, sent), "a body begins at its beginning")
			require.True(rt, !f.whole[i] || sent == text, "a body is never half re-sent: %q", sent)
		}
	})
}
