package sagacrash

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// orchestrate makes the process one of the orchestrators.
func (p process) orchestrate() {
	store := reportingStore{saga.NewSQLStore(p.db, saga.Postgres, p.box, p.inbox)}
	o, err := saga.NewOrchestrator(store, saga.Config{}, fulfilment(ledger{p.db}))
	check(err)
	o.Attach(p.svc)
}

// reportingStore reports what came too late.
type reportingStore struct{ saga.Store }

func (s reportingStore) Commit(ctx context.Context, c saga.Commit) error {
	err := s.Store.Commit(ctx, c)
	switch {
	case errors.Is(err, saga.ErrConflict):
		report(reportConflict)
	case errors.Is(err, saga.ErrDuplicate):
		report(reportDuplicate)
	}
	return err
}

// ledger is the invoices. Each call with its key is counted, so that it is known
// how many were repeated.
type ledger struct{ db *sql.DB }

var ordersTables = []string{
	"CREATE TABLE invoices (order_id TEXT PRIMARY KEY, number BIGINT GENERATED ALWAYS AS IDENTITY, void BOOLEAN NOT NULL)",
	"CREATE TABLE calls (key TEXT PRIMARY KEY, times INT NOT NULL)",
}

var errTransient = errors.New("not this time")

// write takes its time and fails now and then, before or after it has its effect.
func (l ledger) write(ctx context.Context, o Order) (number int64, err error) {
	if err := l.arrive(ctx); err != nil {
		return 0, err
	}
	if o.Fate == uninvoiced {
		return 0, eventbus.Permanent(errors.New("no invoice for this order"))
	}
	if _, err := l.db.ExecContext(ctx, "INSERT INTO invoices (order_id, void) VALUES ($1, FALSE) ON CONFLICT DO NOTHING", o.ID); err != nil {
		return 0, err
	}
	var void bool
	if err := l.db.QueryRowContext(ctx, "SELECT number, void FROM invoices WHERE order_id = $1", o.ID).Scan(&number, &void); err != nil {
		return 0, err
	}
	if void {
		return 0, eventbus.Permanent(errors.New("the invoice was voided before"))
	}
	return number, l.leave()
}

// void also keeps an invoice from being written later.
func (l ledger) void(ctx context.Context, o Order) (none struct{}, err error) {
	if err := l.arrive(ctx); err != nil {
		return none, err
	}
	_, err = l.db.ExecContext(ctx, "INSERT INTO invoices (order_id, void) VALUES ($1, TRUE) ON CONFLICT (order_id) DO UPDATE SET void = TRUE", o.ID)
	return none, errors.Join(err, l.leave())
}

func (l ledger) arrive(ctx context.Context) error {
	if _, err := l.db.ExecContext(ctx, "INSERT INTO calls (key, times) VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET times = calls.times + 1", saga.KeyOf(ctx)); err != nil {
		return err
	}
	if !pause(ctx, rand.N(20*time.Millisecond)) || rand.N(10) == 0 {
		return errTransient
	}
	return nil
}

func (ledger) leave() error {
	if rand.N(10) == 0 {
		return errTransient
	}
	return nil
}
