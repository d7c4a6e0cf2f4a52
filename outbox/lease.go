package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

var (
	errNoTables = errors.New("there are no tables: call Migrate, or apply Schema, first")
	errNewer    = errors.New("the tables were made by a newer version of Millrace")
	// errFenced says that another relay has taken the outbox over.
	errFenced = errors.New("another relay has taken over")
	// errExpired says that the lease could not be renewed in time.
	errExpired = errors.New("the lease could not be renewed in time")
)

// lease is the right to publish from an outbox. The token rises with every
// owner: whatever the relay writes is conditional on it.
type lease struct {
	token     int64
	published int64 // the cursor: everything up to this position is published
	duration  time.Duration
	taken     time.Time // before the statement that took or renewed it
}

// stopBy is when the owner must have stopped publishing: a fifth before the
// lease ends for everyone else.
func (l *lease) stopBy() time.Time { return l.taken.Add(l.duration - l.duration/5) }

// peekLease reads until when the outbox belongs to somebody, and checks that it
// can be used.
func (o *Outbox) peekLease(ctx context.Context) (until time.Time, ok bool, err error) {
	var version int
	var millis int64
	err = o.db.QueryRowContext(ctx, o.sql.peek).Scan(&version, &millis)
	switch {
	case errors.Is(err, sql.ErrNoRows) || o.sql.dialect.IsMissingTable(err):
		return until, false, fmt.Errorf("table %s_relay: %w", o.sql.prefix, errNoTables)
	case err != nil:
		return until, false, err
	case version > schemaVersion:
		return until, false, fmt.Errorf("version %d, this program knows version %d: %w", version, schemaVersion, errNewer)
	}
	return time.UnixMilli(millis), true, nil
}

// acquire takes the outbox if it is free. Otherwise it returns no lease and how
// long it belongs to somebody else.
func (o *Outbox) acquire(ctx context.Context, owner string, d time.Duration) (*lease, time.Duration, error) {
	until, _, err := o.peekLease(ctx)
	if err != nil {
		return nil, 0, err
	}
	now := time.Now()
	if until.After(now) {
		return nil, until.Sub(now), nil
	}
	l := &lease{duration: d, taken: now}
	// Not cancelled with ctx: a lease taken by a statement whose answer was not
	// awaited would block the outbox.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), d/2)
	defer cancel()
	done, err := o.sql.dialect.Turn(bounded, o.db)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	err = o.db.QueryRowContext(bounded, o.sql.acquire, owner, now.Add(d).UnixMilli(), now.UnixMilli()).Scan(&l.token, &l.published)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, d, nil // somebody was faster
	}
	if err != nil {
		return nil, 0, err
	}
	return l, 0, nil
}

// release gives the outbox to whoever comes first.
func (o *Outbox) release(l *lease, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	done, err := o.sql.dialect.Turn(ctx, o.db)
	if err == nil {
		_, err = o.db.ExecContext(ctx, o.sql.release, l.token)
		done()
	}
	if err != nil {
		log.Warn("outbox: the lease was not released and will expire", "error", err, "after", l.duration)
	}
}

// fenced runs fn in a transaction that begins with a statement conditional on
// the token. It returns errFenced, and changes nothing, when the token is no
// longer the outbox's.
func (o *Outbox) fenced(ctx context.Context, guard string, args []any, fn func(*sql.Tx) error) error {
	return o.sql.dialect.Transact(ctx, o.db, func(tx *sql.Tx) error {
		n, err := exec(ctx, tx, guard, args...)
		if err != nil {
			return err
		}
		if n == 0 {
			return errFenced
		}
		return fn(tx)
	})
}
