package httpresilience

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace-go/millrace/resilience"
)

// Headers of requests between services that trust each other.
const (
	// PreviousAttemptsHeader says how often the call was tried before. It is left
	// out at the first try.
	PreviousAttemptsHeader = "X-Previous-Attempts"
	// TimeoutHeader says how many milliseconds the caller will still wait. It is
	// left out if there is no limit.
	TimeoutHeader = "X-Request-Timeout-Ms"
)

// Always returns true. As TransportConfig.Propagate and MiddlewareConfig.Trusted
// it is for services whose callers and callees are all one's own.
func Always(*http.Request) bool { return true }

func never(*http.Request) bool { return false }

// What is believed of a header's number.
const (
	mostAttempts = 100
	mostTimeout  = 24 * time.Hour
)

// propagate writes the headers.
func propagate(ctx context.Context, h http.Header) {
	h.Del(PreviousAttemptsHeader)
	if n := resilience.PreviousAttempts(ctx); n > 0 {
		h.Set(PreviousAttemptsHeader, strconv.Itoa(min(n, mostAttempts)))
	}
	h.Del(TimeoutHeader)
	if at, ok := ctx.Deadline(); ok {
		left := min(max(time.Until(at), time.Millisecond), mostTimeout)
		h.Set(TimeoutHeader, strconv.FormatInt(left.Milliseconds(), 10))
	}
}

// believe returns the context that the headers speak of. What is malformed or out
// of bounds is ignored.
func believe(ctx context.Context, h http.Header) (context.Context, context.CancelFunc) {
	if n, ok := number(h, PreviousAttemptsHeader, mostAttempts); ok {
		ctx = resilience.WithPreviousAttempts(ctx, n)
	}
	if ms, ok := number(h, TimeoutHeader, int(mostTimeout.Milliseconds())); ok {
		return context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
	}
	return ctx, func() {}
}

// number reads a header field that is there once, from 1 to most.
func number(h http.Header, name string, most int) (int, bool) {
	v := h[name]
	if len(v) != 1 || !isDigits(v[0]) {
		return 0, false
	}
	n, err := strconv.Atoi(v[0])
	return n, err == nil && n >= 1 && n <= most
}
