package pgxinbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/internal/marks"
)

// InBatch queues the marks of several events behind the statements of b, as one
// statement. If one of the events was handled before, or is among all twice, b
// fails as a whole; for some InBatch knows that already. Call committed when b has
// been executed, so that the marks are remembered.
func (i *Inbox) InBatch(ctx context.Context, b *pgx.Batch, all ...idempotency.Mark) (committed func(), err error) {
	keys, digests := make([]marks.Key, len(all)), make([]marks.Digest, len(all))
	for n, m := range all {
		if keys[n], digests[n], err = i.prepare(ctx, m); err != nil {
			return nil, err
		}
		if i.state.Remembers(digests[n]) {
			return nil, fmt.Errorf("pgxinbox: %s: %w", m, errDuplicate)
		}
	}
	if len(all) > 0 {
		slices.SortFunc(keys, marks.Compare)
		statement, args := i.state.StrictMany(keys, time.Now().UnixMilli())
		b.Queue(statement, args...)
	}
	return func() {
		for _, d := range digests {
			i.state.Committed(d)
		}
	}, nil
}
