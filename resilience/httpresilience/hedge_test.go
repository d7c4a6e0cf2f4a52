package httpresilience_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/httpresilience"
)

// stuckFirst answers the first request when its client leaves.
func stuckFirst(left chan<- struct{}) func(int, http.ResponseWriter, *http.Request) {
	return func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			<-r.Context().Done()
			close(left)
			return
		}
		_, _ = io.WriteString(w, "second")
	}
}

func TestHedgeTakesTheAnswerThatComesFirst(t *testing.T) {
	for _, body := range []io.Reader{strings.NewReader("whole"), opaque("whole")} {
		left := make(chan struct{})
		s := serve(t, stuckFirst(left))
		b := breaker(1)
		got := do(t, client(t, httpresilience.TransportConfig{}, hedge(20*time.Millisecond), b), request(t, "PUT", s.URL, body))
		require.Equal(t, "second", got.text)
		<-left
		require.Equal(t, resilience.Closed, b.State(), "who lost has not failed")
		require.Len(t, s.requests(), 2)
		for _, a := range s.requests() {
			require.Equal(t, "whole", a.body)
		}
	}
}

// watched returns a hedge that says when it begins a second attempt.
func watched() (h *resilience.Hedge, hedged <-chan struct{}) {
	begun := make(chan struct{})
	return resilience.Must(resilience.NewHedge(resilience.HedgeConfig{
		After: 10 * time.Millisecond, Budget: resilience.Unlimited(), Observer: func(resilience.Event) { close(begun) },
	})), begun
}

func TestHedgeDoesNotSendTwiceWhatMustBeSentOnce(t *testing.T) {
	h, hedged := watched()
	b := breaker(1)
	s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		<-hedged
		_, _ = io.WriteString(w, "first")
	})
	got := do(t, client(t, httpresilience.TransportConfig{}, h, b), request(t, "POST", s.URL, strings.NewReader("x")))
	require.Equal(t, "first", got.text)
	require.Len(t, s.requests(), 1)
	require.Equal(t, resilience.Closed, b.State())
}

func TestHedgeFailsWithTheErrorOfTheOneAttempt(t *testing.T) {
	h, hedged := watched()
	s := serve(t, func(_ int, _ http.ResponseWriter, _ *http.Request) {
		<-hedged
		panic(http.ErrAbortHandler)
	})
	_, err := client(t, httpresilience.TransportConfig{}, h).Do(request(t, "POST", s.URL, strings.NewReader("x")))
	require.ErrorContains(t, err, "EOF")
	require.Len(t, s.requests(), 1)
}

// tie is a base that answers two requests at the same time, whatever becomes of
// their contexts.
type tie struct {
	both sync.WaitGroup
	open atomic.Int32
}

func (b *tie) RoundTrip(*http.Request) (*http.Response, error) {
	b.both.Done()
	b.both.Wait()
	b.open.Add(1)
	return &http.Response{StatusCode: http.StatusOK, Body: &tied{Reader: strings.NewReader("x"), of: b}}, nil
}

type tied struct {
	io.Reader
	of   *tie
	once sync.Once
}

func (b *tied) Close() error {
	b.once.Do(func() { b.of.open.Add(-1) })
	return nil
}

func TestHedgeClosesTheResponsesThatLost(t *testing.T) {
	for range 100 {
		b := &tie{}
		b.both.Add(2)
		resp, err := client(t, httpresilience.TransportConfig{Base: b}, hedge(time.Microsecond)).Do(request(t, "GET", "http://x", nil))
		require.NoError(t, err)
		require.EqualValues(t, 1, b.open.Load())
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "x", string(text))
		require.NoError(t, resp.Body.Close())
		require.Zero(t, b.open.Load())
	}
}
