package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/millrace-go/millrace/idempotency/internal/marks"
)

// errFound says that a mark of the batch has been written by somebody else.
var errFound = errors.New("other deliveries keep marking events of this batch")

// withoutDuplicates is Transact on MySQL, which can't say which rows of an
// INSERT were new: it inserts all, and after an error about duplicates those
// that were not found by a look.
func (b batches) withoutDuplicates(ctx context.Context, keys []marks.Key, fn func(*sql.Tx, []bool) error) error {
	fresh := make([]bool, len(keys))
	for n := range fresh {
		fresh[n] = true
	}
	err := errFound
	for try := 0; try < 10 && errors.Is(err, errFound); try++ {
		if try > 0 {
			found, err := b.seenMany(ctx, keys)
			if err != nil {
				return err
			}
			for n := range fresh {
				fresh[n] = !found[n]
			}
		}
		err = b.insertFresh(ctx, keys, fresh, fn)
	}
	return err
}

func (b batches) insertFresh(ctx context.Context, keys []marks.Key, fresh []bool, fn func(*sql.Tx, []bool) error) error {
	var missing []marks.Key
	for n, k := range keys {
		if fresh[n] {
			missing = append(missing, k)
		}
	}
	now := time.Now().UnixMilli()
	return b.state.Retry(ctx, func(called *bool) error {
		return b.state.Dialect.Transact(ctx, b.db, func(tx *sql.Tx) error {
			err := marks.Chunks(missing, b.state.Chunk(), func(chunk []marks.Key) error {
				statement, args := b.state.MarkMany(chunk, now)
				_, err := tx.ExecContext(ctx, statement, args...)
				return err
			})
			switch {
			case b.state.IsDuplicate(err):
				return errFound
			case err != nil:
				return b.state.Explain(err)
			}
			*called = true
			return fn(tx, fresh)
		})
	})
}

func (b batches) seenMany(ctx context.Context, keys []marks.Key) ([]bool, error) {
	return marks.Which(keys, b.state.Chunk(), func(chunk []marks.Key) ([]marks.Key, error) {
		statement, args := b.state.SeenMany(chunk)
		return readKeys(b.db.QueryContext(ctx, statement, args...))
	})
}
