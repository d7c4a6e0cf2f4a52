package outbox

import (
	"context"
	"fmt"
)

// Schema returns the statements that make the outbox's tables, for those with a
// migration tool of their own. They may be executed again without harm. It is
// empty if New was given bad arguments.
func (o *Outbox) Schema() string {
	if o.err != nil {
		return ""
	}
	return o.sql.dialect.Script(o.sql.prefix, o.sql.migrations)
}

// Migrate makes the outbox's tables where they are missing. It may be called at
// every start, by several processes at once.
func (o *Outbox) Migrate(ctx context.Context) error {
	if o.err != nil {
		return o.err
	}
	if err := o.sql.dialect.Migrate(ctx, o.db, o.sql.prefix, o.sql.migrations); err != nil {
		return fmt.Errorf("outbox: migrate %s: %w", o.sql.prefix, err)
	}
	o.prepare(ctx)
	return nil
}
