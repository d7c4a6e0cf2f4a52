package resilience

import (
	"context"
	"fmt"
	"sync"
)

// foreign is a Policy from elsewhere as a layer. It may make attempts side by
// side, and won't say which one counted: that is the last, or of those side by
// side the first that succeeded.
type foreign struct{ Policy }

func (f foreign) do(ctx context.Context, c call) error {
	c.again()
	inner := &foreignCall{call: c}
	return f.Do(ctx, inner.run)
}

func (f foreign) describe() Description {
	if d, ok := f.Policy.(interface{ Describe() Description }); ok {
		return d.Describe()
	}
	if s, ok := f.Policy.(fmt.Stringer); ok {
		return Description{Kind: "custom", Settings: s.String()}
	}
	return Description{Kind: "custom", Settings: fmt.Sprintf("%T", f.Policy)}
}

// foreignCall is a call through a foreign policy.
type foreignCall struct {
	call call

	mu        sync.Mutex
	succeeded int
}

func (f *foreignCall) run(ctx context.Context) error {
	f.mu.Lock()
	before := f.succeeded
	f.mu.Unlock()
	c := f.call
	c.target = c.target.Fork()
	err := c.run(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.succeeded == before {
		f.call.target.Join(c.target)
	}
	if err == nil {
		f.succeeded++
	}
	return err
}

// asLayer asks for the types themselves: what embeds one of them has the methods
// of a layer, too, but a Do of its own.
func asLayer(p any) layer {
	switch p := p.(type) {
	case *Pipeline, *NamedPolicy, *measured,
		*Retry, *CircuitBreaker, *Timeout, *Bulkhead, *RateLimiter, *AdaptiveLimiter, *Hedge, *Fallback:
		return p.(layer)
	}
	return foreign{p.(Policy)}
}
