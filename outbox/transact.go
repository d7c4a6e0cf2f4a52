package outbox

import (
	"context"
	"database/sql"

	"github.com/millrace-go/millrace/internal/aftercommit"
)

// Transact runs fn in a transaction: it begins, calls fn, commits and wakes the
// relay if fn published something with the ctx it was given. An error or a
// panic of fn rolls back, events included; the error is returned as it is. A
// commit that fails is an error, and then nothing is published, unless the
// connection broke meanwhile: then nobody knows.
//
// When the database gives the transaction up because of another one (a deadlock,
// a failed serialization), fn is called again in a new one, up to ten times in
// all, so it must have no effects besides.
//
// Writing transactions of SQLite exclude each other: don't begin another one
// within fn.
func (o *Outbox) Transact(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	if o.err != nil {
		return o.err
	}
	o.prepare(ctx)
	return o.sql.dialect.Retry(ctx, func() error {
		ctx, hooks := aftercommit.With(ctx)
		if err := o.sql.dialect.Transact(ctx, o.db, func(tx *sql.Tx) error { return fn(ctx, tx) }); err != nil {
			return err
		}
		hooks.Run()
		return nil
	})
}
