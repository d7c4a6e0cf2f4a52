package idempotency

import (
	"bytes"
	"maps"
	"net/http"
	"time"
)

// recorder is the http.ResponseWriter of a handler whose response will be
// stored. It holds the response back until that has been done; a response that
// grows over the limit, or is flushed, is passed on as it comes. It has no
// Unwrap, so a connection can't be hijacked behind its back.
type recorder struct {
	w      http.ResponseWriter
	limit  int         // of the body that is recorded, in bytes
	before http.Header // as the handler found them
	header http.Header // as the handler left them
	sealed http.Header // when it wrote the status
	status int         // 0: not written yet
	body   bytes.Buffer
	over   bool // the body did not fit
	sent   bool // the status has been passed on
}

func newRecorder(w http.ResponseWriter, limit int) *recorder {
	return &recorder{w: w, limit: limit, before: w.Header().Clone(), header: cloneHeader(w.Header())}
}

func cloneHeader(h http.Header) http.Header {
	if h = h.Clone(); h == nil {
		h = http.Header{}
	}
	return h
}

// Header is of http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader is of http.ResponseWriter. Informational statuses pass.
func (r *recorder) WriteHeader(status int) {
	switch {
	case r.status != 0:
	case status < 200:
		maps.Copy(r.w.Header(), r.header)
		r.w.WriteHeader(status)
	default:
		r.status, r.sealed = status, r.header.Clone()
	}
}

// Write is of http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if !bodyAllowed(r.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if !r.over && r.body.Len()+len(b) <= r.limit {
		r.body.Write(b)
		if !r.sent {
			return len(b), nil
		}
		return r.w.Write(b)
	}
	if err := r.send(); err != nil {
		return 0, err
	}
	r.over = true
	r.body = bytes.Buffer{}
	return r.w.Write(b)
}

// send passes on what there is, once.
func (r *recorder) send() error {
	r.WriteHeader(http.StatusOK)
	if r.sent {
		return nil
	}
	r.sent = true
	h := r.w.Header()
	clear(h)
	maps.Copy(h, r.sealed)
	r.w.WriteHeader(r.status)
	if r.body.Len() == 0 {
		return nil
	}
	_, err := r.w.Write(r.body.Bytes())
	return err
}

// FlushError is for http.ResponseController.
func (r *recorder) FlushError() error {
	if err := r.send(); err != nil {
		return err
	}
	return http.NewResponseController(r.w).Flush()
}

// Flush is of http.Flusher.
func (r *recorder) Flush() { _ = r.FlushError() }

// SetReadDeadline is for http.ResponseController.
func (r *recorder) SetReadDeadline(t time.Time) error {
	return http.NewResponseController(r.w).SetReadDeadline(t)
}

// SetWriteDeadline is for http.ResponseController.
func (r *recorder) SetWriteDeadline(t time.Time) error {
	return http.NewResponseController(r.w).SetWriteDeadline(t)
}

// kept is the response as it is stored.
func (r *recorder) kept(omit []string) (kept, error) {
	r.WriteHeader(http.StatusOK)
	if r.over {
		return kept{kind: keptTooLarge}, nil
	}
	text, err := response{r.status, storedHeader(r.before, r.sealed, omit), r.body.Bytes()}.encode()
	return kept{keptResult, text}, err
}
