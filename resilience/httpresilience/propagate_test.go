package httpresilience_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/httpresilience"
)

func TestPropagateIsOffByDefault(t *testing.T) {
	s := serve(t, answer(503))
	ctx := resilience.WithPreviousAttempts(t.Context(), 3)
	do(t, client(t, httpresilience.TransportConfig{}, timeout(time.Hour)), request(t, "GET", s.URL, nil).WithContext(ctx))
	require.Empty(t, s.requests()[0].header.Get(httpresilience.PreviousAttemptsHeader))
	require.Empty(t, s.requests()[0].header.Get(httpresilience.TimeoutHeader))
}

func TestPropagate(t *testing.T) {
	s := serve(t, answer(503, 503))
	r := request(t, "GET", s.URL, nil)
	do(t, client(t, httpresilience.TransportConfig{Propagate: httpresilience.Always}, retry(), timeout(time.Minute)), r)
	require.Empty(t, r.Header, "the caller's request stays as it is")
	for i, a := range s.requests() {
		previous := ""
		if i > 0 {
			previous = strconv.Itoa(i)
		}
		require.Equal(t, previous, a.header.Get(httpresilience.PreviousAttemptsHeader))
		ms, err := strconv.Atoi(a.header.Get(httpresilience.TimeoutHeader))
		require.NoError(t, err)
		require.InDelta(t, 60_000, ms, 10_000)
	}
	require.Len(t, s.requests(), 3)
}

func TestPropagateWithoutADeadline(t *testing.T) {
	s := serve(t, answer())
	do(t, client(t, httpresilience.TransportConfig{Propagate: httpresilience.Always}), request(t, "POST", s.URL, nil))
	require.NotContains(t, s.requests()[0].header, httpresilience.PreviousAttemptsHeader)
	require.NotContains(t, s.requests()[0].header, httpresilience.TimeoutHeader)
}

func TestMiddlewareBelievesWhomItTrusts(t *testing.T) {
	for _, c := range []struct {
		attempts, timeout string
		trusted           bool
		previous          int
		limited           bool
	}{
		{attempts: "2", timeout: "60000"},
		{attempts: "2", timeout: "60000", trusted: true, previous: 2, limited: true},
		{attempts: "100", timeout: "86400000", trusted: true, previous: 100, limited: true},
		{attempts: "101", timeout: "86400001", trusted: true},
		{attempts: "0", timeout: "0", trusted: true},
		{attempts: "-1", timeout: "-1", trusted: true},
		{attempts: "1e3", timeout: "0x10", trusted: true},
		{attempts: "+1", timeout: " 5 s", trusted: true},
		{attempts: "99999999999999999999", timeout: "99999999999999999999", trusted: true},
		{trusted: true},
	} {
		t.Run(fmt.Sprintf("%q %q %v", c.attempts, c.timeout, c.trusted), func(t *testing.T) {
			cfg := httpresilience.MiddlewareConfig{}
			if c.trusted {
				cfg.Trusted = httpresilience.Always
			}
			url := shed(t, cfg, resilience.Must(resilience.NewPipeline("")), func(w http.ResponseWriter, r *http.Request) {
				_, limited := r.Context().Deadline()
				fmt.Fprint(w, resilience.PreviousAttempts(r.Context()), limited)
			})
			got := do(t, plain(t), request(t, "GET", url, nil, httpresilience.PreviousAttemptsHeader, c.attempts, httpresilience.TimeoutHeader, c.timeout))
			require.Equal(t, fmt.Sprint(c.previous, c.limited), got.text)
		})
	}
	t.Run("twice", func(t *testing.T) {
		url := shed(t, httpresilience.MiddlewareConfig{Trusted: httpresilience.Always}, resilience.Must(resilience.NewPipeline("")), func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, resilience.PreviousAttempts(r.Context()))
		})
		r := request(t, "GET", url, nil)
		r.Header[httpresilience.PreviousAttemptsHeader] = []string{"1", "2"}
		require.Equal(t, "0", do(t, plain(t), r).text)
	})
}

func TestMiddlewareOnlyShortensTheTime(t *testing.T) {
	url := shed(t, httpresilience.MiddlewareConfig{Trusted: httpresilience.Always}, timeout(time.Minute), func(w http.ResponseWriter, r *http.Request) {
		at, _ := r.Context().Deadline()
		fmt.Fprint(w, int(time.Until(at).Seconds()))
	})
	long, err := strconv.Atoi(do(t, plain(t), request(t, "GET", url, nil, httpresilience.TimeoutHeader, "3600000")).text)
	require.NoError(t, err)
	require.LessOrEqual(t, long, 60)
	short, err := strconv.Atoi(do(t, plain(t), request(t, "GET", url, nil, httpresilience.TimeoutHeader, "30000")).text)
	require.NoError(t, err)
	require.LessOrEqual(t, short, 30)
}

func TestMiddlewareEndsWhatNobodyWaitsFor(t *testing.T) {
	url := shed(t, httpresilience.MiddlewareConfig{Trusted: httpresilience.Always}, resilience.Must(resilience.NewPipeline("")), func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	})
	do(t, plain(t), request(t, "GET", url, nil, httpresilience.TimeoutHeader, "20")).problem(t, 503, "timeout", "")
}

// TestRetriesAlongAChainAddUp has three services, each of which retries the next,
// and the last one always fails: it must not see 3 × 3 requests.
func TestRetriesAlongAChainAddUp(t *testing.T) {
	last := serve(t, answer(503, 503, 503, 503, 503, 503, 503, 503, 503))
	onward := client(t, httpresilience.TransportConfig{Propagate: httpresilience.Always}, retry())
	middle := shed(t, httpresilience.MiddlewareConfig{Trusted: httpresilience.Always}, resilience.Must(resilience.NewPipeline("")), func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, last.URL, nil)
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := onward.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	})
	got := do(t, client(t, httpresilience.TransportConfig{Propagate: httpresilience.Always}, retry()), request(t, "GET", middle, nil))
	require.Equal(t, 503, got.StatusCode)
	require.Len(t, last.requests(), 5, "three for the first try, and one for each retry")
	var previous []string
	for _, a := range last.requests() {
		previous = append(previous, a.header.Get(httpresilience.PreviousAttemptsHeader))
	}
	require.Equal(t, []string{"", "1", "2", "1", "2"}, previous)
}

func TestDeadlineTravelsWithTheCallersContext(t *testing.T) {
	s := serve(t, answer())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	do(t, client(t, httpresilience.TransportConfig{Propagate: httpresilience.Always}, timeout(time.Minute)), request(t, "GET", s.URL, nil).WithContext(ctx))
	ms, err := strconv.Atoi(s.requests()[0].header.Get(httpresilience.TimeoutHeader))
	require.NoError(t, err)
	require.LessOrEqual(t, ms, 30_000)
}
