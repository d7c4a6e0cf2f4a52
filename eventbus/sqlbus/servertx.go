package sqlbus

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"time"
)

// transact runs ops in one transaction. Whatever becomes of it, they may run again.
func (l *lane) transact(batch []*op) error {
	return l.server.inTransaction(statementTimeout, func(tx *session) error {
		for _, o := range batch {
			if err := o.run(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

// transactInSlot is for what may wait for the lock of a topic.
func (l *lane) transactInSlot(batch []*op) error {
	if err := l.server.takeSlot(); err != nil {
		return err
	}
	defer l.server.freeSlot()
	return l.transact(batch)
}

func (s *server) inTransaction(timeout time.Duration, run func(*session) error) error {
	return s.onConnection(timeout, func(ctx context.Context, conn *sql.Conn) error {
		if _, err := conn.ExecContext(ctx, s.flavour.begin()); err != nil {
			return err
		}
		tx := newSession(s.dialect, conn)
		tx.ctx = ctx
		if err := run(tx); err != nil {
			return err
		}
		_, err := conn.ExecContext(ctx, "COMMIT")
		return err
	})
}

// onConnection gives run a connection, which is left without a transaction. When
// close ends it, nobody waits for the result any more.
func (s *server) onConnection(timeout time.Duration, run func(context.Context, *sql.Conn) error) error {
	ctx, cancel := context.WithTimeout(s.open, timeout)
	defer cancel()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return &unsentError{err}
	}
	defer release(conn)
	err = run(ctx, conn)
	switch {
	case err == nil:
	case ctx.Err() != nil, // no use asking any further
		s.flavour.readOnly(err): // the name may lead to the new primary by now
		drop(conn)
	default:
		clean(conn)
	}
	return err
}

// release gives a connection back to the pool.
func release(conn *sql.Conn) { _ = conn.Close() } // if it is broken, it is gone

// clean drops a connection on which the rollback fails.
func clean(conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(background, rollbackTimeout)
	defer cancel()
	if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		drop(conn)
	}
}

func drop(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return sqldriver.ErrBadConn }) // which is what makes it go
}

// unsentError is about a connection that could not be had.
type unsentError struct{ error }

func (e *unsentError) Unwrap() error { return e.error }
