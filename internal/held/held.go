// Package held marks contexts for what may be sent later, together with what comes
// next: a statement whose result is not looked at with the next one of its
// transaction, or with its COMMIT; a BEGIN with the first statement.
package held

import "context"

type key struct{}

// May returns a ctx with which statement may be held back. Others that are
// executed with it, by hooks on the way to the driver, may not.
func May(ctx context.Context, statement string) context.Context {
	return context.WithValue(ctx, key{}, statement)
}

// Back reports whether statement may be held back.
func Back(ctx context.Context, statement string) bool {
	may, ok := ctx.Value(key{}).(string)
	return ok && may == statement
}

type beginKey struct{}

// MayBegin returns a ctx to begin a transaction with whose first statement follows
// at once.
func MayBegin(ctx context.Context) context.Context { return context.WithValue(ctx, beginKey{}, true) }

// Begin reports whether the BEGIN of a transaction may wait for its first statement.
func Begin(ctx context.Context) bool { return ctx.Value(beginKey{}) != nil }
