// Package held marks contexts for a statement that may be sent later: together with
// the next one of its transaction, or with its COMMIT. Its result is not looked at.
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
