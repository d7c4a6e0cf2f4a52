package main

import (
	"context"
	"net/http"
	"net/http/httptest"

	"github.com/failsafe-go/failsafe-go/failsafehttp"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/httpresilience"
)

// answering is a transport that sends nothing.
type answering struct{}

func (answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, work(r.Context())
}

// watching is one that looks at the request's context, as those that send do.
type watching struct{}

func (watching) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, watch(r.Context())
}

func httpClients() group {
	return httpClientsOf("HTTP client, retry > breaker > timeout", answering{})
}

func watchedHTTPClients() group {
	return httpClientsOf("HTTP client, the same, context watched", watching{})
}

func httpClientsOf(title string, base http.RoundTripper) group {
	policy := newPipeline()
	ours := resilience.Must(httpresilience.NewTransport(policy, httpresilience.TransportConfig{Base: base}))
	safe := failsafehttp.NewRoundTripper(base, failsafePolicies(failsafehttp.NewRetryPolicyBuilder())...) //nolint:bodyclose // policies, not responses
	return group{title: title, bare: requested("transport", base), variants: []variant{
		requested("by hand: the policy", roundTripper(func(r *http.Request) (*http.Response, error) {
			return resilience.Get(r.Context(), policy, func(ctx context.Context) (*http.Response, error) {
				return base.RoundTrip(r.WithContext(ctx))
			})
		})),
		requested("millrace transport", ours),
		requested("failsafe-go round tripper", safe),
	}}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func requested(name string, t http.RoundTripper) variant {
	return variant{name, func() func() error {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/", http.NoBody)
		return func() error {
			resp, err := t.RoundTrip(r)
			if err != nil {
				return err
			}
			return resp.Body.Close()
		}
	}}
}

// serve is a handler that nobody knows more of than that, as for work: inlined,
// the copy of a request for it would be free.
var serve http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if work(r.Context()) == nil {
		w.WriteHeader(http.StatusNoContent)
	}
})

func httpServers() group {
	policy := newBreaker(resilience.CircuitBreakerConfig{})
	ours := resilience.Must(httpresilience.NewMiddleware(policy, httpresilience.MiddlewareConfig{}))(serve)
	safe := failsafehttp.NewHandler(serve, failsafeBreaker[*http.Response]()) //nolint:bodyclose // a policy, not a response
	return group{title: "HTTP server, breaker", bare: served("handler", serve), variants: []variant{
		served("by hand: the policy", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err := policy.Do(r.Context(), func(ctx context.Context) error {
				serve.ServeHTTP(w, r.WithContext(ctx))
				return nil
			})
			if err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})),
		served("millrace middleware", ours),
		served("failsafe-go handler", safe),
	}}
}

// discarding is a response that nobody reads.
type discarding struct{ header http.Header }

func (d discarding) Header() http.Header         { return d.header }
func (d discarding) Write(b []byte) (int, error) { return len(b), nil }
func (d discarding) WriteHeader(int)             {}

func served(name string, h http.Handler) variant {
	return variant{name, func() func() error {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", http.NoBody)
		w := discarding{http.Header{}}
		return func() error {
			h.ServeHTTP(w, r)
			return nil
		}
	}}
}
