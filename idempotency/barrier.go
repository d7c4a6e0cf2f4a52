package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/dialect"
)

// Barrier guards a participant of sagas against what a network does to the
// commands for a step: they come twice, the compensation overtakes its action, or
// the action arrives after its compensation. It keeps one row per step in the
// participant's own database, written in the transaction of the step's effects:
//
//	verdict, err := barrier.Forward(ctx, tx, key)
//	if err != nil {
//		return err
//	}
//	if verdict.Run() {
//		// the action's writes on tx ...
//	}
//
// and the same with Compensate. It is safe for concurrent use; action and
// compensation of one step wait for each other's transactions.
type Barrier struct {
	db     *sql.DB
	sql    barrierSQL
	keep   time.Duration
	logger *slog.Logger
	err    error // what was wrong with the arguments of NewBarrier
}

// BarrierConfig configures a Barrier.
type BarrierConfig struct {
	SQLConfig
	// Retention is how long a step is remembered after its last command. It must be
	// longer than a saga may live, operators' repairs included: a command that
	// comes later is taken for the first. Defaults to 90 days.
	Retention time.Duration
}

// BarrierKey names a step of one saga. Both fields are required, of any length,
// and the same for the action, its compensation and all repetitions of both:
// don't make them of an attempt's id or a message's.
type BarrierKey struct {
	// Saga is the id of the saga's instance.
	Saga string
	// Step is the name of the step, or of its branch, within the saga.
	Step string
}

// String returns the key for errors and logs, long parts cut.
func (k BarrierKey) String() string {
	return "step " + strconv.Quote(cut(k.Step, maxShown)) + " of saga " + strconv.Quote(cut(k.Saga, maxShown))
}

func (k BarrierKey) check() error {
	if k.Saga == "" || k.Step == "" {
		return eventbus.Permanent(errors.New("idempotency: barrier: the key needs a saga and a step, which are the same for an action and its compensation"))
	}
	return nil
}

// Verdict says what to do with a command. Only Proceed runs it; all others are
// to be answered as a success without effect, but for Hanging, which may also be
// answered as a refusal.
type Verdict int

const (
	// Proceed means that the command is to be done, in this transaction.
	Proceed Verdict = iota + 1
	// Duplicate means that it was done before.
	Duplicate
	// NullCompensation is for a compensation whose action has not arrived. There is
	// nothing to undo; the action, if it ever arrives, will be Hanging.
	NullCompensation
	// Hanging is for an action whose compensation was there before: done now, it
	// would never be undone. It is also the verdict on the repetition of an action
	// that has been compensated.
	Hanging
)

// Run reports whether the command is to be done.
func (v Verdict) Run() bool { return v == Proceed }

// String returns the verdict's name, such as "null compensation".
func (v Verdict) String() string {
	switch v {
	case Proceed:
		return "proceed"
	case Duplicate:
		return "duplicate"
	case NullCompensation:
		return "null compensation"
	case Hanging:
		return "hanging"
	}
	return "no verdict"
}

// NewBarrier returns the barrier in db. It does not touch the database: its table
// is made by Migrate or from Schema. Whatever is wrong with the arguments is
// returned by every use.
func NewBarrier(db *sql.DB, d Dialect, c BarrierConfig) *Barrier {
	orElse(&c.Table, "millrace_barrier")
	orElse(&c.Retention, 90*24*time.Hour)
	b := &Barrier{db: db, keep: c.Retention, logger: c.Logger}
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("the database is nil"))
	}
	if c.Retention < 0 {
		errs = append(errs, fmt.Errorf("Retention must be positive, got %v", c.Retention))
	}
	if err := errors.Join(append(errs, d.Check(), dialect.CheckPrefix(c.Table))...); err != nil {
		b.err = fmt.Errorf("idempotency: NewBarrier: %w", err)
		return b
	}
	b.sql = newBarrierSQL(d, c.Table)
	return b
}

// Forward records in tx that the action of k has arrived, and says whether to do
// it: Proceed, Duplicate or Hanging. Call it first in tx. If tx is rolled back,
// nothing has arrived. Errors of the database leave tx to be rolled back; those
// about k are permanent.
func (b *Barrier) Forward(ctx context.Context, tx *sql.Tx, k BarrierKey) (Verdict, error) {
	s, err := b.arrive(ctx, tx, k, "action", 1, 0)
	switch {
	case err != nil:
		return 0, err
	case s.calls == 1:
		return Proceed, nil
	case s.compensated > 0:
		return Hanging, nil
	}
	return Duplicate, nil
}

// Compensate records in tx that the compensation of k has arrived, and says
// whether to do it: Proceed, Duplicate or NullCompensation. Otherwise it is like
// Forward.
func (b *Barrier) Compensate(ctx context.Context, tx *sql.Tx, k BarrierKey) (Verdict, error) {
	s, err := b.arrive(ctx, tx, k, "compensation", 0, 1)
	switch {
	case err != nil:
		return 0, err
	case s.calls == 1:
		return NullCompensation, nil
	case s.compensated > 0:
		return Duplicate, nil
	}
	hash := k.hash()
	if _, err := tx.ExecContext(ctx, b.sql.compensate, hash[:]); err != nil {
		return 0, b.failed("compensation", k, err)
	}
	return Proceed, nil
}

// step is the state of a step: what was there before this command, and how many
// commands there were with this one.
type step struct{ compensated, calls int }

func (k BarrierKey) hash() [32]byte { return digest(k.Saga, k.Step) }

// arrive writes the row before it reads it, so that the transactions of two
// commands take turns from here on.
func (b *Barrier) arrive(ctx context.Context, tx *sql.Tx, k BarrierKey, what string, forward, compensated int) (s step, err error) {
	if b.err != nil {
		return s, b.err
	}
	if err := k.check(); err != nil {
		return s, err
	}
	if tx == nil {
		return s, fmt.Errorf("idempotency: barrier: %s of %s: the transaction is nil", what, k)
	}
	hash := k.hash()
	keep := b.keep.Microseconds()
	if _, err = tx.ExecContext(ctx, b.sql.arrive, hash[:], []byte(k.String()), forward, compensated, keep, keep); err == nil {
		err = tx.QueryRowContext(ctx, b.sql.read, hash[:]).Scan(&s.compensated, &s.calls)
	}
	if err != nil {
		return s, b.failed(what, k, err)
	}
	return s, nil
}

func (b *Barrier) failed(what string, k BarrierKey, err error) error {
	if b.sql.dialect.IsMissingTable(err) {
		err = fmt.Errorf("%w: call Migrate, or apply Schema, before the barrier is used", err)
	}
	return fmt.Errorf("idempotency: barrier: %s of %s: %w", what, k, err)
}
