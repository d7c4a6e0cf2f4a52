// Package hop carries in a context what a call has behind it: how often it was
// tried before. Retries beneath a retried call can then be left out, so that
// along a chain of services they add up instead of multiplying.
package hop

import "context"

// Key is the key of the number of previous attempts, an int, in a context.
type Key struct{}

// With returns a context of a call that was tried n times before.
func With(ctx context.Context, n int) context.Context {
	return context.WithValue(ctx, Key{}, n)
}

// Previous returns how often the call that ctx belongs to was tried before.
func Previous(ctx context.Context) int {
	n, _ := ctx.Value(Key{}).(int)
	return n
}
