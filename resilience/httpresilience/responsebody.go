package httpresilience

import (
	"io"
	"net/http"
	"time"
)

// responseBody is the body of a response, which ends its attempt's context when
// it was read or closed.
type responseBody struct {
	io.ReadCloser
	resp *http.Response
	end  func() // of the attempt's context; it may be called again
	kept bool   // by the caller
}

// newResponseBody puts a responseBody into resp. A connection that was upgraded can
// still be written to.
func newResponseBody(resp *http.Response, end func()) *responseBody {
	b := &responseBody{ReadCloser: resp.Body, resp: resp, end: end}
	w, upgraded := resp.Body.(io.Writer)
	switch {
	case resp.Body == nil || resp.Body == http.NoBody:
		resp.Body = http.NoBody
		end()
	case resp.StatusCode == http.StatusSwitchingProtocols && upgraded:
		resp.Body = struct {
			*responseBody
			io.Writer
		}{b, w}
	default:
		resp.Body = b
	}
	return b
}

// Read is of io.Reader.
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end()
	}
	return n, err
}

// Close is of io.Closer.
func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}

// What is read of a body that nobody wants, so that the connection can be used
// again; beyond that a new one is cheaper.
const (
	drainMost = 64 << 10
	drainTime = 50 * time.Millisecond
)

// drain reads and closes the body.
func (b *responseBody) drain() {
	slow := time.AfterFunc(drainTime, b.end)
	defer slow.Stop()
	_, _ = io.CopyN(io.Discard, b.resp.Body, drainMost)
	_ = b.resp.Body.Close()
}
