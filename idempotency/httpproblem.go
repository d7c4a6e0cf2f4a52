package idempotency

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"
)

// problem is an error response of RFC 9457. Kind is an anchor in the
// documentation.
type problem struct {
	kind   string
	title  string
	status int
	detail string
	after  time.Duration // for Retry-After; 0: none
}

const problemDocs = "https://github.com/millrace-go/millrace/blob/main/docs/idempotency-keys.md"

// longestRetryAfter bounds Retry-After: most requests end long before a lease does.
const longestRetryAfter = 5 * time.Second

func (p problem) write(w http.ResponseWriter, docs string) {
	link := docs + "#" + p.kind
	body, _ := json.Marshal(struct { // strings and a number: it can't fail
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{link, p.title, p.status, p.detail})
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Add("Link", "<"+link+`>; rel="describedby"; type="text/html"`)
	if p.after > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(min(p.after, longestRetryAfter).Seconds()))))
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(append(body, '\n'))
}

func keyProblem(err error) problem {
	return problem{kind: "key-invalid", title: "Idempotency-Key is invalid", status: http.StatusBadRequest, detail: err.Error()}
}

var keyMissing = problem{
	kind: "key-missing", title: "Idempotency-Key is missing", status: http.StatusBadRequest,
	detail: "This operation requires the header field Idempotency-Key, with a value that is new for every new request and the same when that is repeated.",
}

func bodyProblem(err error) problem {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return problem{
			kind: "body-too-large", title: "The request is too large", status: http.StatusRequestEntityTooLarge,
			detail: "With an Idempotency-Key the body may have at most " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes.",
		}
	}
	return problem{kind: "body-unreadable", title: "The body could not be read", status: http.StatusBadRequest}
}

// outcomeProblem says what an error of the guard means to the client. Errors of
// the store are not for its eyes.
func outcomeProblem(err error) problem {
	var busy *InProgressError
	switch {
	case errors.As(err, &busy):
		return problem{
			kind: "in-progress", title: "A request with this Idempotency-Key is in progress", status: http.StatusConflict,
			detail: "Repeat the request later to get its response.", after: max(busy.After, time.Second),
		}
	case errors.Is(err, ErrMismatch):
		return problem{
			kind: "key-reused", title: "Idempotency-Key was used for another request", status: http.StatusUnprocessableEntity,
			detail: "The key belongs to a request with another method, path, query or body. Send a new request with a new key.",
		}
	case errors.Is(err, ErrTooOld):
		return problem{
			kind: "key-too-old", title: "Idempotency-Key is too old", status: http.StatusUnprocessableEntity,
			detail: "Whether the request was done is not known any more. Find out before it is sent with a new key.",
		}
	case errors.Is(err, ErrNoResult):
		return problem{
			kind: "response-not-kept", title: "The response is not available", status: http.StatusConflict,
			detail: "The request was done, but its response could not be kept. Do not repeat it with a new key.",
		}
	case errors.Is(err, ErrLost):
		return problem{
			kind: "in-progress", title: "A request with this Idempotency-Key is in progress", status: http.StatusConflict,
			detail: "Another try has taken the request over. Repeat it later to get its response.", after: time.Second,
		}
	case errors.Is(err, context.Canceled):
		return problem{kind: "unavailable", title: "The client has gone", status: http.StatusServiceUnavailable}
	}
	return problem{
		kind: "unavailable", title: "Repetitions can't be recognised at the moment", status: http.StatusServiceUnavailable,
		detail: "The request was not done. Repeat it later with the same key.", after: time.Second,
	}
}
