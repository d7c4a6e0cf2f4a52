package httpresilience

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/millrace-go/millrace/resilience/internal/final"
)

// exchange is one RoundTrip with all its attempts.
type exchange struct {
	transport *Transport
	req       *http.Request
	once      bool // the request must not arrive twice
	content   content

	mu       sync.Mutex
	attempts int
	running  int
	over     bool            // an attempt may have reached the server, or its body is gone
	last     *http.Response  // of the last attempt that ended, or nil
	err      error           // of the last attempt that ended, if it got no response
	failed   []*responseBody // of statuses that the policy took for failures
	answered []*responseBody // of others
}

// prepare makes the body ready to be sent as often as may be.
func (x *exchange) prepare() (err error) {
	x.content, err = contentOf(x.req, x.once, x.transport.cfg.MaxBody)
	if err != nil {
		return ended(x.req.Context(), err)
	}
	x.once = x.once || !x.content.replayable()
	return nil
}

// outcome is what the caller gets.
func (x *exchange) outcome(resp *http.Response, err error) (*http.Response, error) {
	if resp == nil && err == nil { // a fallback
		resp = x.last
	}
	switch caller := x.req.Context(); {
	case err != nil && caller.Err() != nil:
		return nil, ended(caller, err)
	case resp != nil && x.release(resp):
		return resp, nil
	case x.err != nil && (err == nil || errors.Is(err, errOnce)):
		return nil, x.err
	case err == nil:
		return nil, errNoResponse
	}
	return nil, final.Bare(err)
}

var errNoResponse = errors.New("httpresilience: the policy returned without an error and without a response")

// attempt is the function that the policy calls. When the request must not be
// sent any more, what came of it stands.
func (x *exchange) attempt(ctx context.Context) (*http.Response, error) {
	content, superseded, err := x.begin()
	if err != nil {
		return x.stands(), err
	}
	for _, b := range superseded {
		b.drain()
	}
	b, err := x.send(ctx, content)
	return x.end(b, content, err)
}

// begin returns the body for an attempt and the responses that it supersedes. A
// response that was no failure may still be the result, if attempts run beside
// each other.
func (x *exchange) begin() (body *requestBody, superseded []*responseBody, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.once && (x.over || x.running > 0) {
		return nil, nil, errOnce
	}
	if body, err = x.content.next(); err != nil {
		return nil, nil, err
	}
	x.attempts++
	x.running++
	superseded, x.failed = x.failed, nil
	return body, superseded, nil
}

// end takes what came of an attempt.
func (x *exchange) end(b *responseBody, sent *requestBody, err error) (*http.Response, error) {
	var failure error
	if err == nil {
		failure = x.transport.judge(b.resp)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.running--
	if x.err = err; err != nil {
		x.last = nil
		x.over = x.over || sent.touched() || !neverLeft(err) || !x.content.replayable()
		return nil, x.verdict(err)
	}
	x.over = true
	x.last = b.resp
	if failure != nil {
		x.failed = append(x.failed, b)
	} else {
		x.answered = append(x.answered, b)
	}
	return b.resp, x.verdict(failure)
}

// verdict is what the policy gets to know of a failure.
func (x *exchange) verdict(failure error) error {
	if x.once && x.over {
		return final.Mark(failure)
	}
	return failure
}

// neverLeft reports whether err says that there was no connection to send the
// request by.
func neverLeft(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && (e.Op == "dial" || e.Op == "proxyconnect")
}

func (x *exchange) stands() *http.Response {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.last
}

// release leaves a response to the caller, unless it has been superseded.
func (x *exchange) release(resp *http.Response) bool {
	for _, held := range [][]*responseBody{x.failed, x.answered} {
		for _, b := range held {
			if b.resp == resp {
				b.kept = true
				return true
			}
		}
	}
	return false
}

// close closes all that the caller does not get.
func (x *exchange) close() {
	for _, held := range [][]*responseBody{x.failed, x.answered} {
		for _, b := range held {
			if !b.kept {
				_ = b.resp.Body.Close()
			}
		}
	}
	if x.attempts == 0 && x.req.Body != nil {
		_ = x.req.Body.Close()
	}
}
