package httpresilience

import (
	"context"
	"net/http"
)

// send makes one attempt. Its context ends with the policy's until the headers
// have arrived, and then only with the caller's, for the policy's ends when its
// call returns, and the body is read after that.
func (x *exchange) send(policy context.Context, body *requestBody) (*responseBody, error) {
	caller := x.req.Context()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(policy))
	unlinkCaller := context.AfterFunc(caller, func() { cancel(context.Cause(caller)) })
	unlinkPolicy := func() bool { return true }
	if policy.Done() != caller.Done() {
		unlinkPolicy = context.AfterFunc(policy, func() { cancel(context.Cause(policy)) })
	}
	end := func() {
		unlinkCaller()
		cancel(nil)
	}
	resp, err := x.transport.cfg.Base.RoundTrip(x.request(ctx, policy, body))
	inTime := unlinkPolicy()
	if err != nil {
		end()
		return nil, ended(policy, err)
	}
	b := newResponseBody(resp, end)
	resp.Request = x.req
	if !inTime {
		_ = resp.Body.Close()
		return nil, ended(policy, context.Canceled)
	}
	return b, nil
}

// request is the caller's, for one attempt. Trailers stay the caller's own, who
// sets them while the body is read.
func (x *exchange) request(ctx, policy context.Context, body *requestBody) *http.Request {
	r := x.req.Clone(ctx)
	r.Trailer = x.req.Trailer
	if body != nil {
		r.Body, r.GetBody = body.reader(), x.content.again
	}
	if x.transport.cfg.Propagate(r) {
		propagate(policy, r.Header)
	}
	return r
}
