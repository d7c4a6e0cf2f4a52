package pgxinbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-go/millrace/idempotency"
)

// Send is Transact for effects that are known beforehand: it executes the
// statements of b in one transaction with the mark m, begun and committed in
// one round trip. If m is there already, none is executed, no function that was
// set for their results is called, and duplicate is true.
//
// b must neither begin nor end a transaction, and can't be sent again. An error
// of a statement, or of the commit, is wrapped; nothing has happened then, unless
// the connection was lost, which the next delivery finds out.
func (i *Inbox) Send(ctx context.Context, m idempotency.Mark, b *pgx.Batch) (duplicate bool, err error) {
	key, digest, err := i.prepare(ctx, m)
	if err != nil {
		return false, err
	}
	if i.state.Known(digest) {
		return true, nil
	}
	var all pgx.Batch
	all.Queue(i.state.Strict, key.Consumer, key.Source, key.ID, time.Now().UnixMilli())
	all.QueuedQueries = append(all.QueuedQueries, b.QueuedQueries...)
	switch err := i.send(ctx, &all); {
	case errors.Is(err, errDuplicate):
		i.state.Duplicate(digest)
		return true, nil
	case err != nil:
		return false, fmt.Errorf("pgxinbox: %s: %w", m, i.state.Explain(err))
	}
	i.state.Committed(digest)
	return false, nil
}

// send executes all, whose first statement is the mark, as one transaction.
func (i *Inbox) send(ctx context.Context, all *pgx.Batch) error {
	conn, err := i.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	answer := conn.SendBatch(ctx, all)
	_, err = answer.Exec()
	if i.state.IsDuplicate(err) {
		_ = answer.Close() // the same error
		return errDuplicate
	}
	if err := errors.Join(err, answer.Close()); err != nil {
		return err
	}
	if conn.Conn().PgConn().TxStatus() != 'I' { // Release rolls it back
		return errors.New("the statements have begun a transaction of their own, which is rolled back")
	}
	return nil
}
