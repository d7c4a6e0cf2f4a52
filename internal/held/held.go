// Package held marks contexts of statements that may be sent later: together with
// the next one of their transaction, or with its COMMIT. Their results are not
// looked at.
package held

import "context"

type key struct{}

// May returns a ctx whose statement may be held back.
func May(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, true) }

// Back reports whether the statement of ctx may be held back.
func Back(ctx context.Context) bool { return ctx.Value(key{}) != nil }
