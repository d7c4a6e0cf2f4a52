package httpresilience

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace-go/millrace/resilience"
)

// problem is an error response of RFC 9457. Kind is an anchor in the
// documentation.
type problem struct {
	kind   string
	title  string
	status int
	after  time.Duration // for Retry-After; 0: none
}

const problemDocs = "https://github.com/millrace-go/millrace/blob/main/docs/resilience.md"

func (p problem) write(w http.ResponseWriter, docs string) {
	link := docs + "#" + p.kind
	body, _ := json.Marshal(struct { // strings and a number: it can't fail
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
	}{link, p.title, p.status})
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Add("Link", "<"+link+`>; rel="describedby"; type="text/html"`)
	if p.after > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(p.after.Seconds())), 10))
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(append(body, '\n'))
}

// problemOf says what an error of the policy means to the client. Which policy it
// was is not for its eyes.
func problemOf(err error) problem {
	p := problem{kind: "unavailable", title: "The service is not available", status: http.StatusServiceUnavailable}
	switch {
	case errors.Is(err, resilience.ErrRateLimited):
		p = problem{kind: "rate-limited", title: "There are too many requests", status: http.StatusTooManyRequests}
	case errors.Is(err, resilience.ErrBulkheadFull), errors.Is(err, resilience.ErrOverloaded):
		p.kind, p.title = "overloaded", "The service is overloaded"
	case errors.Is(err, context.DeadlineExceeded):
		p.kind, p.title = "timeout", "The request took too long"
	}
	if resilience.IsRejected(err) {
		after, _ := resilience.RetryAfter(err)
		p.after = max(after, time.Second)
	}
	return p
}
