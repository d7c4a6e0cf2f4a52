package httpresilience

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/millrace-go/millrace/resilience/internal/final"
	"github.com/millrace-go/millrace/resilience/internal/target"
)

// exchange is one RoundTrip with all its attempts.
type exchange struct {
	transport *Transport
	req       *http.Request
	once      bool // the request must not arrive twice
	content   content

	mu      sync.Mutex
	latest  *attempt // that began
	running int
	over    bool           // an attempt may have reached the server, or its body is gone
	last    *http.Response // of the last attempt that ended, or nil
	err     error          // of the last attempt that ended, if it got no response

	first   attempt
	sending sending
}

// sending is the exchange as what the policy calls, and the response of the
// attempt that counts.
type sending struct {
	exchange *exchange
	resp     *http.Response
}

// Run is of target.Target.
func (s *sending) Run(ctx context.Context) (err error) {
	s.resp, err = s.exchange.attempt(ctx) //nolint:bodyclose // the exchange does
	return err
}

// Fork is of target.Target.
func (s *sending) Fork() target.Target { return &sending{exchange: s.exchange} }

// Join is of target.Target.
func (s *sending) Join(fork target.Target) { s.resp = fork.(*sending).resp }

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

// attempt makes an attempt. When the request must not be sent any more, what came
// of it stands.
func (x *exchange) attempt(ctx context.Context) (*http.Response, error) {
	a, obsolete, err := x.begin(ctx)
	if err != nil {
		return x.stands(), err
	}
	for _, b := range obsolete {
		b.drain()
	}
	return x.end(a, x.send(a))
}

// begin returns an attempt and the responses that it supersedes. A response that
// was no failure may still be the result, if attempts run beside each other.
func (x *exchange) begin(ctx context.Context) (a *attempt, obsolete []*responseBody, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.once && (x.over || x.running > 0) {
		return nil, nil, errOnce
	}
	body, err := x.content.next()
	if err != nil {
		return nil, nil, err
	}
	for a := x.latest; a != nil; a = a.earlier {
		if a.fate == failed {
			a.fate = superseded
			obsolete = append(obsolete, &a.answer)
		}
	}
	a = &x.first
	if x.latest != nil {
		a = &attempt{earlier: x.latest}
	}
	a.ctx.policy, a.ctx.caller = ctx, x.req.Context()
	a.sent.ReadCloser, a.sent.watch = body, x.content.watch
	x.latest = a
	x.running++
	return a, obsolete, nil
}

// end takes what came of an attempt.
func (x *exchange) end(a *attempt, err error) (*http.Response, error) {
	var failure error
	if err == nil {
		failure = x.transport.judge(a.answer.resp)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.running--
	if x.err = err; err != nil {
		x.last = nil
		x.over = x.over || a.sent.touched() || !neverLeft(err) || !x.content.replayable()
		return nil, x.verdict(err)
	}
	x.over = true
	x.last = a.answer.resp
	a.fate = answered
	if failure != nil {
		a.fate = failed
	}
	return x.last, x.verdict(failure)
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
	for a := x.latest; a != nil; a = a.earlier {
		if a.answer.resp == resp && a.held() {
			a.answer.kept = true
			return true
		}
	}
	return false
}

// held reports whether the attempt has a response that somebody must close.
func (a *attempt) held() bool { return a.fate == failed || a.fate == answered }

// close closes all that the caller does not get.
func (x *exchange) close() {
	for a := x.latest; a != nil; a = a.earlier {
		if a.held() && !a.answer.kept {
			_ = a.answer.resp.Body.Close()
		}
	}
	if x.latest == nil && x.req.Body != nil {
		_ = x.req.Body.Close()
	}
}
