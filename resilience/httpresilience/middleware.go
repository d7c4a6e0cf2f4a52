package httpresilience

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"sync/atomic"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/internal/target"
)

// MiddlewareConfig configures a middleware. The zero value is safe.
type MiddlewareConfig struct {
	// Trusted says whose requests' headers PreviousAttemptsHeader and TimeoutHeader
	// are believed. The time can only shorten that of the request's context, but it
	// makes handlers fail, which counts for the policy. Defaults to nobody's; see
	// Always.
	Trusted func(*http.Request) bool
	// Docs is the URL of the page about problems that error responses link to, with
	// the kind of the problem as anchor. Defaults to Millrace's own.
	Docs string
}

// NewMiddleware returns a middleware that calls handlers through the policy, or
// what is wrong. All handlers share the policy's state. The policy must not call
// a handler twice, so it must have no Retry and no Hedge.
func NewMiddleware(policy resilience.Policy, cfg MiddlewareConfig) (func(http.Handler) http.Handler, error) {
	if err := suits(policy); err != nil {
		return nil, err
	}
	if cfg.Trusted == nil {
		cfg.Trusted = never
	}
	if cfg.Docs == "" {
		cfg.Docs = problemDocs
	}
	return func(next http.Handler) http.Handler { return &guarded{policy, cfg, next} }, nil
}

// suits returns what is wrong with a policy around a handler.
func suits(p resilience.Policy) error {
	var kinds []string
	switch p := p.(type) {
	case nil:
		return errors.New("httpresilience: middleware: the policy must not be nil")
	case *resilience.Retry:
		kinds = []string{"retry"}
	case *resilience.Hedge:
		kinds = []string{"hedge"}
	case interface {
		Describe() []resilience.Description
	}:
		for _, d := range p.Describe() {
			kinds = append(kinds, d.Kind)
		}
	}
	var errs []error
	for _, kind := range kinds {
		if kind == "retry" || kind == "hedge" {
			errs = append(errs, errors.New("httpresilience: middleware: the policy has a "+kind+", but a handler can't be called again when it has written something"))
		}
	}
	return errors.Join(errs...)
}

// guarded is a handler behind the middleware.
type guarded struct {
	policy resilience.Policy
	cfg    MiddlewareConfig
	next   http.Handler
}

// ServeHTTP is of http.Handler.
func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.cfg.Trusted(r) {
		ctx, cancel := believe(r.Context(), r.Header)
		defer cancel()
		r = r.WithContext(ctx)
	}
	s := &service{Context: r.Context(), next: g.next, w: writer{ResponseWriter: w}, r: r}
	var header http.Header
	if h := w.Header(); len(h) > 0 {
		header = h.Clone()
	}
	err := target.Do(s, g.policy, s)
	switch {
	case s.aborted:
		panic(http.ErrAbortHandler)
	case s.w.used() || err == nil && s.called.Load():
		return
	}
	clear(w.Header()) // the handler did not get to send what it had in mind
	maps.Copy(w.Header(), header)
	problemOf(err).write(w, g.cfg.Docs)
}

// service is one request, and the context that the policy is called with: when
// the handler is, too, the request need not be copied for another one.
type service struct {
	context.Context
	next    http.Handler
	w       writer
	r       *http.Request
	called  atomic.Bool
	aborted bool
}

// Run is what the policy calls. The handler is called once, whatever the policy
// does.
func (s *service) Run(ctx context.Context) (err error) {
	if !s.called.CompareAndSwap(false, true) {
		return errOnce
	}
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler: // a proxy panics with it when its client has gone
			s.aborted = true
			err = s.failure(http.ErrAbortHandler)
		default:
			panic(v) // with the frames of the first one still on the stack
		}
	}()
	r := s.r
	if ctx != context.Context(s) {
		r = r.WithContext(ctx)
	}
	s.next.ServeHTTP(&s.w, r)
	switch {
	case s.w.status >= http.StatusInternalServerError:
		return s.failure(&StatusError{Status: s.w.status, class: resilience.Transient})
	case !s.w.used():
		return ended(ctx, nil)
	}
	return nil
}

// Fork is of target.Target: there is no other attempt.
func (s *service) Fork() target.Target { return s }

// Join is of target.Target.
func (s *service) Join(target.Target) {}

// failure returns err, unless the handler failed because the client has gone.
func (s *service) failure(err error) error {
	if errors.Is(s.r.Context().Err(), context.Canceled) {
		return ended(s.r.Context(), err)
	}
	return err
}
