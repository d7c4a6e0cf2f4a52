package httpresilience

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace-go/millrace/resilience"
)

// StatusError is a response whose status the policy takes for a failure. It is
// seen by policies, their observers and fallbacks; callers get the response.
type StatusError struct {
	Status int
	After  time.Duration // what Retry-After asks for; 0: nothing

	class resilience.Class
}

// Error says what the status is.
func (e *StatusError) Error() string {
	s := fmt.Sprintf("httpresilience: status %d %s", e.Status, http.StatusText(e.Status))
	if e.After > 0 {
		s += fmt.Sprintf(", try again in %v", e.After)
	}
	return s
}

// Class returns Transient or Throttled.
func (e *StatusError) Class() resilience.Class { return e.class }

// RetryAfter returns After.
func (e *StatusError) RetryAfter() time.Duration { return e.After }

// ClassifyStatus is what the status of a response means to a policy: 429, and 503
// with a valid Retry-After, are Throttled; 500, 502, 503, 504, 408 and 425 are
// Transient; all others are answers, Permanent.
func ClassifyStatus(resp *http.Response) resilience.Class {
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return resilience.Throttled
	case http.StatusServiceUnavailable:
		if _, ok := retryAfter(resp.Header); ok {
			return resilience.Throttled
		}
		return resilience.Transient
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout,
		http.StatusRequestTimeout, http.StatusTooEarly:
		return resilience.Transient
	}
	return resilience.Permanent
}

// judge returns a *StatusError for a response that is a failure.
func (t *Transport) judge(resp *http.Response) error {
	switch class := t.cfg.Classify(resp); class {
	case resilience.Transient:
		return &StatusError{Status: resp.StatusCode, class: class}
	case resilience.Throttled:
		after, _ := retryAfter(resp.Header)
		return &StatusError{Status: resp.StatusCode, After: after, class: class}
	}
	return nil
}

const longest = time.Duration(math.MaxInt64)

// retryAfter reads the header Retry-After: seconds, or a date. That is compared
// with the server's own Date, if it says one.
func retryAfter(h http.Header) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if isDigits(v) {
		seconds, err := strconv.ParseInt(v, 10, 64)
		if err != nil || seconds > int64(longest/time.Second) {
			return longest, true
		}
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(0, at.Sub(now)), true
}

func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
