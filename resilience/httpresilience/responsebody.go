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
	ctx  *attemptContext
	kept bool // by the caller
}

// take puts b into resp. A connection that was upgraded can still be written to.
func (b *responseBody) take(resp *http.Response, ctx *attemptContext) {
	b.ReadCloser, b.resp, b.ctx = resp.Body, resp, ctx
	w, upgraded := resp.Body.(io.Writer)
	switch {
	case resp.Body == nil || resp.Body == http.NoBody:
		resp.Body = http.NoBody
		ctx.end()
	case resp.StatusCode == http.StatusSwitchingProtocols && upgraded:
		resp.Body = struct {
			*responseBody
			io.Writer
		}{b, w}
	default:
		resp.Body = b
	}
}

// Read is of io.Reader.
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.ctx.end()
	}
	return n, err
}

// Close is of io.Closer.
func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.ctx.end()
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
	slow := time.AfterFunc(drainTime, b.ctx.end)
	defer slow.Stop()
	_, _ = io.CopyN(io.Discard, b.resp.Body, drainMost)
	_ = b.resp.Body.Close()
}
