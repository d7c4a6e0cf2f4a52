// Package httpapi is what the shop's HTTP endpoints have in common: their errors
// and how they refuse methods.
package httpapi

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
)

// Problem is an error of the client's, and the application/problem+json
// (RFC 9457) that tells about it.
type Problem struct {
	Type   string         `json:"type"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail"`
	Field  string         `json:"field,omitempty"`  // the first that is wrong
	Errors []FieldProblem `json:"errors,omitempty"` // all that are
}

// FieldProblem is what is wrong with one field.
type FieldProblem struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// Add notes one more field that is wrong.
func (p *Problem) Add(field, detail string) {
	if p.Field == "" {
		p.Field, p.Detail = field, field+": "+detail
	}
	p.Errors = append(p.Errors, FieldProblem{field, detail})
}

// OrNil returns p as an error if a field was added, else nil.
func (p *Problem) OrNil() error {
	if p.Field == "" {
		return nil
	}
	return p
}

// Invalid is the problem of one bad field.
func Invalid(field, detail string) error {
	p := &Problem{Status: http.StatusBadRequest}
	p.Add(field, detail)
	return p
}

// WriteError answers with err's problem; an error that is none is ours and is
// only logged.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	var p *Problem
	if !errors.As(err, &p) {
		slog.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		p = &Problem{Status: http.StatusInternalServerError, Detail: "the request failed and may be repeated, with the same Idempotency-Key if it has one"}
	}
	answer := *p
	answer.Type, answer.Title = "about:blank", http.StatusText(p.Status)
	WriteJSON(w, p.Status, "application/problem+json", answer)
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own plain types come here
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(body, '\n')) //nolint:errcheck // the client is gone, nobody is left to tell
}
