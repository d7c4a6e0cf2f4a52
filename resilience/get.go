package resilience

import "context"

// Get calls fn through p and returns its value: that of the last attempt, or of
// the hedged attempt that won, also beside an error. Where p turned the call
// away, or a Fallback answered, it is the zero value; see GetOr.
//
// To fail on a value, return it with an error; Check does that:
//
//	resilience.Get(ctx, policy, resilience.Check(fetch, notStale))
func Get[T any](ctx context.Context, p Policy, fn func(ctx context.Context) (T, error)) (T, error) {
	if r, ok := p.(*Retry); ok && r.cfg.MaxElapsed == 0 {
		return getRetrying(ctx, r, fn)
	}
	g := &getter[T]{fn: fn}
	err := asLayer(p).do(ctx, call{target: g})
	return g.value, err
}

// getRetrying needs nothing to hold the value of a first attempt that succeeds.
func getRetrying[T any](ctx context.Context, r *Retry, fn func(ctx context.Context) (T, error)) (T, error) {
	r.cfg.Budget.earn()
	v, err := fn(ctx)
	if err == nil {
		return v, nil
	}
	g := &getter[T]{fn, v}
	err = r.retry(ctx, call{target: g}, err)
	return g.value, err
}

// GetOr is Get with a fallback: on an error, its value and error count instead.
func GetOr[T any](ctx context.Context, p Policy, fn func(ctx context.Context) (T, error), fallback func(ctx context.Context, err error) (T, error)) (T, error) {
	v, err := Get(ctx, p, fn)
	if err != nil {
		return fallback(ctx, err)
	}
	return v, nil
}

// Check makes a function fail, without losing its value, when accept returns an
// error for that value.
func Check[T any](fn func(ctx context.Context) (T, error), accept func(T) error) func(ctx context.Context) (T, error) {
	return func(ctx context.Context) (T, error) {
		v, err := fn(ctx)
		if err == nil {
			err = accept(v)
		}
		return v, err
	}
}

// getter is a target with a result.
type getter[T any] struct {
	fn    func(ctx context.Context) (T, error)
	value T
}

func (g *getter[T]) Run(ctx context.Context) (err error) {
	g.value, err = g.fn(ctx)
	return err
}

func (g *getter[T]) Fork() target     { return &getter[T]{fn: g.fn} }
func (g *getter[T]) Join(fork target) { g.value = fork.(*getter[T]).value }
