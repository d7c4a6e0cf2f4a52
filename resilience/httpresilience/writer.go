package httpresilience

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// writer is the http.ResponseWriter of a handler, which notes the status. What
// else the one beneath can do is reached by http.ResponseController.
type writer struct {
	http.ResponseWriter
	status   int // 0: not written yet
	hijacked bool
}

// used reports whether it is too late for another response.
func (w *writer) used() bool { return w.status != 0 || w.hijacked }

// WriteHeader is of http.ResponseWriter. Informational statuses pass.
func (w *writer) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write is of http.ResponseWriter.
func (w *writer) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}

// ReadFrom lets files go out without a copy.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	w.begin()
	return io.Copy(w.ResponseWriter, r)
}

func (w *writer) begin() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// FlushError is for http.ResponseController.
func (w *writer) FlushError() error {
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is of http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() }

// Hijack is of http.Hijacker.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.hijacked = w.hijacked || err == nil
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
