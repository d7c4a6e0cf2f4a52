package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/millrace-go/millrace/internal/dialect"
)

var (
	errNoTables = errors.New("there are no tables: call Migrate, or apply Schema, first")
	// errFenced says that another relay has taken the outbox over.
	errFenced = errors.New("another relay has taken over")
	// errRestarted says that the database server is not the one that it was: rows that
	// were read before may be gone, and their positions be handed out again.
	errRestarted = errors.New("the database server has restarted")
	// errExpired says that the lease could not be renewed in time.
	errExpired = errors.New("the lease could not be renewed in time")
)

// lease is the right to publish from an outbox. The token rises with every
// owner: whatever the relay writes is conditional on it.
type lease struct {
	token     int64
	published int64 // everything up to this position is published
	missing   gaps  // but for these
	swept     int64 // and everything up to this one is deleted
	duration  time.Duration
	server    time.Time // when it began
	taken     time.Time // before the statement that took or renewed it
}

// stopBy is when the owner must have stopped publishing: a fifth before the
// lease ends for everyone else.
func (l *lease) stopBy() time.Time { return l.taken.Add(l.duration - l.duration/5) }

// peekLease reads how much longer the outbox belongs to somebody, and checks
// that it can be used. It is the database's clock that counts.
func (o *Outbox) peekLease(ctx context.Context) (left time.Duration, err error) {
	var version int
	var millis int64
	err = o.db.QueryRowContext(ctx, o.sql.peek).Scan(&version, &millis)
	switch {
	case errors.Is(err, sql.ErrNoRows) || o.sql.dialect.IsMissingTable(err):
		return 0, fmt.Errorf("table %s_relay: %w", o.sql.prefix, errNoTables)
	case err != nil:
		return 0, err
	case version > schemaVersion:
		return 0, fmt.Errorf("version %d, this program knows version %d: %w", version, schemaVersion, dialect.ErrNewer)
	}
	return time.Duration(millis) * time.Millisecond, nil
}

// acquire takes the outbox if it is free. Otherwise it returns no lease and how
// long it belongs to somebody else.
func (o *Outbox) acquire(ctx context.Context, owner string, d time.Duration) (*lease, time.Duration, error) {
	take := o.takeLease
	if o.sql.dialect == Postgres {
		take = o.takeLeaseAtOnce
	} else if left, err := o.peekLease(ctx); err != nil || left > 0 {
		return nil, left, err
	}
	l := &lease{duration: d, taken: time.Now()}
	// Not cancelled with ctx: a lease taken by a statement whose answer was not
	// awaited would block the outbox.
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), d/2)
	defer cancel()
	var missing []byte
	switch free, err := take(bounded, l, owner, &missing); {
	case err != nil:
		return nil, 0, err
	case !free:
		left, err := o.peekLease(ctx)
		if left <= 0 {
			left = d // somebody was faster
		}
		return nil, left, err
	}
	var err error
	if l.missing, err = decodeGaps(missing); err != nil {
		return nil, 0, err
	}
	for i := range l.missing {
		l.missing[i].seen = l.taken
	}
	return l, 0, nil
}

func (o *Outbox) takeLease(ctx context.Context, l *lease, owner string, missing *[]byte) (free bool, err error) {
	err = o.sql.dialect.ReadCommitted(ctx, o.db, func(tx *sql.Tx) error {
		n, err := exec(ctx, tx, o.sql.acquire, owner, l.duration.Milliseconds())
		if free = n > 0; err != nil || !free {
			return err
		}
		if err := tx.QueryRowContext(ctx, o.sql.taken).Scan(&l.token, &l.published, missing, &l.swept); err != nil {
			return err
		}
		l.server, err = o.serverStart(ctx, tx)
		return err
	})
	return free, err
}

// takeLeaseAtOnce is takeLease on PostgreSQL, where it is one statement.
func (o *Outbox) takeLeaseAtOnce(ctx context.Context, l *lease, owner string, missing *[]byte) (free bool, err error) {
	err = o.db.QueryRowContext(ctx, o.sql.acquireAll, owner, l.duration.Milliseconds()).Scan(&l.token, &l.published, missing, &l.swept, &l.server)
	if errors.Is(err, sql.ErrNoRows) || o.sql.dialect.IsConflict(err) || o.sql.dialect.IsMissingTable(err) {
		return false, nil // peekLease says why
	}
	return err == nil, err
}

// release gives the outbox to whoever comes first.
func (o *Outbox) release(l *lease, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	done, err := o.sql.dialect.Turn(ctx, o.db)
	if err == nil {
		_, err = o.db.ExecContext(ctx, o.sql.release, l.swept, l.token)
		done()
	}
	if err != nil {
		log.Warn("outbox: the lease was not released and will expire", "error", err, "after", l.duration)
	}
}

// fenced runs fn in a transaction that no other relay can become active within.
// It returns errFenced, and changes nothing, when the token is no longer the
// outbox's.
func (o *Outbox) fenced(ctx context.Context, token int64, fn func(*sql.Tx) error) error {
	return o.sql.dialect.ReadCommitted(ctx, o.db, func(tx *sql.Tx) error {
		if err := o.hold(ctx, tx, token); err != nil {
			return err
		}
		return fn(tx)
	})
}

// hold locks the relay's row if the token is still the one given.
func (o *Outbox) hold(ctx context.Context, tx *sql.Tx, token int64) error {
	if o.sql.dialect == SQLite {
		n, err := exec(ctx, tx, o.sql.fence, token)
		if err == nil && n == 0 {
			err = errFenced
		}
		return err
	}
	err := tx.QueryRowContext(ctx, o.sql.fence, token).Scan(&token)
	if errors.Is(err, sql.ErrNoRows) {
		return errFenced
	}
	return err
}
