// Package httpresilience puts policies of package resilience around clients and
// servers of net/http.
//
//	transport, err := httpresilience.NewTransport(policy, httpresilience.TransportConfig{})
//	client := &http.Client{Transport: transport}
//
//	shed, err := httpresilience.NewMiddleware(limits, httpresilience.MiddlewareConfig{})
//	http.ListenAndServe(addr, shed(mux))
//
// # Clients
//
// A RoundTrip of a Transport is one call of its policy, and each attempt of that
// one of the transport beneath. The caller gets what net/http would give: the last
// response, whatever its status, or the error when there was none. It is an error
// of the policy when that turned the call away before any response.
//
// For the policy some statuses are failures, see ClassifyStatus: 500, 502, 503,
// 504, 408 and 425 are transient; 429, and 503 with a Retry-After, are throttled,
// and a Retry waits as long as they ask for. All others are answers. A Fallback or
// an Observer sees a failure as a *StatusError.
//
// A request is sent again only if it is idempotent: by its method, or by an
// Idempotency-Key, as in net/http; TransportConfig.Retryable says otherwise. All
// of the policy applies to the others too, so that a breaker counts them and a
// limiter limits them, but they reach the server once. A connection that could
// not be made has carried nothing: then any request may be sent again.
//
// Each attempt has a request and a body of its own: from Request.GetBody, or from
// memory if the body is small, see TransportConfig.MaxBody. A body that can be had
// only once is sent only once.
//
// The call ends with the headers of the response. Reading the body is the
// caller's: a Timeout no longer bounds it, and nothing is sent again when it breaks
// off. The context of the request does bound it, http.Client.Timeout too. Bodies
// of responses that no caller sees are drained, within limits, and closed.
//
// # Servers
//
// The middleware puts a policy around a handler, to shed load: a call that it
// turns away is answered with 503, or 429 by a rate limiter, a Retry-After, and a
// small body of type application/problem+json. Statuses from 500 on and panics are
// failures, unless the client has gone. When time is up before anything was
// written the answer is 503. A handler can't be called again after it wrote
// something, so policies with a Retry or a Hedge are refused, and a policy of
// another kind that calls twice gets an error.
//
// # Along a chain of services
//
// A transport can tell the server, by the headers X-Previous-Attempts and
// X-Request-Timeout-Ms, how often the call was tried before and how much time is
// left. The middleware puts both into the request's context: retries further down
// are then left out, as resilience.PreviousAttempts says, and nobody works on what
// nobody waits for. The time is what is left, not a point in time, so clocks need
// not agree.
//
// Both sides are off by default. The headers would tell third parties about the
// inside of a system, and a stranger that sets a short time makes handlers fail,
// which a breaker counts for all. TransportConfig.Propagate and
// MiddlewareConfig.Trusted turn them on; Always does for services whose callers
// and callees are all one's own.
package httpresilience
