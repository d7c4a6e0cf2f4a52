package httpresilience

import (
	"errors"
	"net/http"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/internal/target"
)

// TransportConfig configures a Transport. The zero value is safe.
type TransportConfig struct {
	// Base sends the requests. It must be safe for concurrent use and, as
	// http.RoundTripper demands, leave requests as they are. Defaults to
	// http.DefaultTransport.
	Base http.RoundTripper
	// Retryable says which requests may be sent more than once. Defaults to
	// Idempotent.
	Retryable func(*http.Request) bool
	// Classify says what a response means to the policy: Transient or Throttled is a
	// failure, anything else an answer. It must leave the body alone. Defaults to
	// ClassifyStatus.
	Classify func(*http.Response) resilience.Class
	// MaxBody is how many bytes of the body of a retryable request without GetBody
	// are held in memory, so that it can be sent again; they are read before the
	// first attempt. With a larger body there is one attempt. Negative means none
	// are, for bodies that are written while the response is read. Defaults to
	// 64 KiB.
	MaxBody int64
	// Propagate says which requests carry the headers PreviousAttemptsHeader and
	// TimeoutHeader. It is asked for each attempt, redirects included. Defaults to
	// none, for others may be at the other end; see Always.
	Propagate func(*http.Request) bool
}

// Transport is an http.RoundTripper that sends requests through a policy. It is
// safe for concurrent use.
type Transport struct {
	policy resilience.Policy
	cfg    TransportConfig
}

// NewTransport returns a transport, or what is wrong. The policy is typically one
// per server, for its breaker and limiters are about that.
func NewTransport(policy resilience.Policy, cfg TransportConfig) (*Transport, error) {
	if policy == nil {
		return nil, errors.New("httpresilience: transport: the policy must not be nil")
	}
	if cfg.Base == nil {
		cfg.Base = http.DefaultTransport
	}
	if cfg.Retryable == nil {
		cfg.Retryable = Idempotent
	}
	if cfg.Classify == nil {
		cfg.Classify = ClassifyStatus
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 64 << 10
	}
	if cfg.Propagate == nil {
		cfg.Propagate = never
	}
	return &Transport{policy, cfg}, nil
}

// RoundTrip sends the request through the policy and returns the last response.
// An error means that the last attempt got none, or that the policy turned the
// call away: see resilience.IsRejected.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x := &exchange{transport: t, req: req, once: !t.cfg.Retryable(req)}
	defer x.close()
	if err := x.prepare(); err != nil {
		return nil, err
	}
	x.sending.exchange = x
	err := target.Do(req.Context(), t.policy, &x.sending)
	return x.outcome(x.sending.resp, err)
}

// CloseIdleConnections has the transport beneath close the connections that it
// keeps. It is for http.Client.CloseIdleConnections.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.cfg.Base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Idempotent reports whether the request may arrive twice: its method is GET,
// HEAD, OPTIONS, TRACE, PUT or DELETE, or it has an Idempotency-Key or
// X-Idempotency-Key in its header.
func Idempotent(r *http.Request) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	_, key := r.Header["Idempotency-Key"]
	_, x := r.Header["X-Idempotency-Key"]
	return key || x
}
