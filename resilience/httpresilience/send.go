package httpresilience

import (
	"context"
	"net/http"
)

// attempt is one sending of the request. All of it is one allocation, the first
// attempt's even that of its exchange.
type attempt struct {
	earlier *attempt
	ctx     attemptContext
	sent    requestBody
	answer  responseBody
	fate    fate
}

// fate is what came of an attempt, as far as its exchange cares.
type fate int

const (
	unanswered fate = iota // as yet, or for ever
	failed                 // with a status that the policy took for a failure
	answered               // with another one
	superseded             // the answer, by another attempt
)

// send makes the attempt.
func (x *exchange) send(a *attempt) error {
	resp, err := x.transport.cfg.Base.RoundTrip(x.request(a))
	inTime := a.ctx.release()
	if err != nil {
		a.ctx.end()
		return ended(a.ctx.policy, err)
	}
	a.answer.take(resp, &a.ctx)
	resp.Request = x.req
	if !inTime {
		_ = resp.Body.Close()
		return ended(a.ctx.policy, context.Canceled)
	}
	return nil
}

// request is the caller's, for one attempt. They share what a base must leave as
// it is.
func (x *exchange) request(a *attempt) *http.Request {
	r := x.req.WithContext(&a.ctx)
	if a.sent.ReadCloser != nil {
		r.Body, r.GetBody = a.sent.reader(), x.content.again
	}
	if x.transport.cfg.Propagate(r) {
		r.Header = r.Header.Clone()
		propagate(a.ctx.policy, r.Header)
	}
	return r
}
