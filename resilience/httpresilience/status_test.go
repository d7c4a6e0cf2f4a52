package httpresilience

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
)

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value string
		date  string
		after time.Duration
		ok    bool
	}{
		{value: "0", ok: true},
		{value: "120", after: 2 * time.Minute, ok: true},
		{value: "99999999999999999999", after: longest, ok: true},
		{value: "9223372037", after: longest, ok: true},
		{value: ""}, {value: "-1"}, {value: "1.5"}, {value: "soon"}, {value: " 1"}, {value: "+1"},
		{value: now.Add(time.Hour).Format(http.TimeFormat), date: now.Format(http.TimeFormat), after: time.Hour, ok: true},
		{value: now.Format(http.TimeFormat), date: now.Add(time.Hour).Format(http.TimeFormat), ok: true},
		{value: now.Format(time.RFC850), date: now.Add(-time.Minute).Format(time.ANSIC), after: time.Minute, ok: true},
	} {
		after, ok := retryAfter(http.Header{"Retry-After": {c.value}, "Date": {c.date}})
		require.Equal(t, c.ok, ok, c.value)
		require.Equal(t, c.after, after, c.value)
	}
}

func TestRetryAfterDateWithoutTheServersDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		after, ok := retryAfter(http.Header{"Retry-After": {time.Now().UTC().Add(time.Minute).Format(http.TimeFormat)}})
		require.True(t, ok)
		require.InDelta(t, time.Minute, after, float64(time.Second))
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "")
	f.Add("Sun, 01 Jun 2025 12:00:00 GMT", "Sun, 01 Jun 2025 11:59:00 GMT")
	f.Fuzz(func(t *testing.T, value, date string) {
		after, ok := retryAfter(http.Header{"Retry-After": {value}, "Date": {date}})
		if after < 0 || !ok && after != 0 {
			t.Fatalf("%v, %v", after, ok)
		}
	})
}

func TestClassifyStatus(t *testing.T) {
	soon := http.Header{"Retry-After": {"7"}}
	for _, c := range []struct {
		status int
		header http.Header
		class  resilience.Class
		after  time.Duration
	}{
		{status: 200, class: resilience.Permanent}, {status: 302, class: resilience.Permanent}, {status: 404, class: resilience.Permanent},
		{status: 408, class: resilience.Transient}, {status: 425, class: resilience.Transient},
		{status: 429, class: resilience.Throttled}, {status: 429, header: soon, class: resilience.Throttled, after: 7 * time.Second},
		{status: 500, class: resilience.Transient}, {status: 501, class: resilience.Permanent}, {status: 502, header: soon, class: resilience.Transient},
		{status: 503, class: resilience.Transient}, {status: 503, header: soon, class: resilience.Throttled, after: 7 * time.Second},
		{status: 503, header: http.Header{"Retry-After": {"soon"}}, class: resilience.Transient}, {status: 504, class: resilience.Transient},
	} {
		resp := &http.Response{StatusCode: c.status, Header: c.header}
		require.Equal(t, c.class, ClassifyStatus(resp), c.status)
		transport := resilience.Must(NewTransport(resilience.Must(resilience.NewPipeline("")), TransportConfig{}))
		err := transport.judge(resp)
		if c.class == resilience.Permanent {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, c.class, resilience.Classify(err))
		after, _ := resilience.RetryAfter(err)
		require.Equal(t, c.after, after)
		require.ErrorContains(t, err, http.StatusText(c.status))
	}
}

// statuses is a base that answers with responses.
type statuses func() *http.Response

func (s statuses) RoundTrip(*http.Request) (*http.Response, error) { return s(), nil }

func TestRetryWaitsForRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		base := statuses(func() *http.Response {
			n++
			if n == 1 {
				return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3"}}}
			}
			return &http.Response{StatusCode: http.StatusOK}
		})
		retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{}))
		transport := resilience.Must(NewTransport(retry, TransportConfig{Base: base}))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x", nil)
		require.NoError(t, err)
		begun := time.Now()
		resp, err := transport.RoundTrip(r)
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.NotNil(t, resp.Body)
		require.GreaterOrEqual(t, time.Since(begun), 3*time.Second)
		require.Less(t, time.Since(begun), 14*time.Second)
	})
}
