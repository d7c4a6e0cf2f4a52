package sagacrash

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/saga"
)

// desk is the service that executes sagas, of which no message knows.
const desk = "desk"

var deskTables = append([]string{"CREATE TABLE tickets (id TEXT PRIMARY KEY, body TEXT NOT NULL)"}, ordersTables...)

// billing is a saga of calls alone.
func billing(l ledger) saga.Definition[Order] {
	const timeout = time.Second
	noUndo := saga.NotNeeded[Order]("it has no effect")
	return saga.Definition[Order]{Name: "billing", Version: 1, Steps: []saga.Node[Order]{
		saga.Step[Order]{Name: "check", Do: saga.Call(l.look, nil), Timeout: timeout, Compensate: noUndo},
		saga.Step[Order]{Name: "invoice", Do: saga.Call(l.enter, nil), Timeout: timeout, Compensate: saga.Call(l.strike, nil)},
		saga.Step[Order]{Name: "approve", Do: saga.Call(l.approve, nil), Timeout: timeout, Compensate: noUndo},
	}}
}

func (l ledger) look(ctx context.Context, _ Order) (none struct{}, err error) {
	return none, l.count(ctx)
}

func (l ledger) enter(ctx context.Context, o Order) (none struct{}, err error) {
	if err := l.count(ctx); err != nil {
		return none, err
	}
	_, err = l.db.ExecContext(ctx, "INSERT INTO invoices (order_id, void) VALUES ($1, FALSE) ON CONFLICT DO NOTHING", o.ID)
	return none, err
}

func (l ledger) strike(ctx context.Context, o Order) (none struct{}, err error) {
	if err := l.count(ctx); err != nil {
		return none, err
	}
	_, err = l.db.ExecContext(ctx, "UPDATE invoices SET void = TRUE WHERE order_id = $1", o.ID)
	return none, err
}

func (l ledger) approve(ctx context.Context, o Order) (none struct{}, err error) {
	if o.Fate == declined {
		return none, eventbus.Permanent(errors.New("declined"))
	}
	return none, l.count(ctx)
}

// count counts a call, which takes its time.
func (l ledger) count(ctx context.Context) error {
	_, err := l.db.ExecContext(ctx, "INSERT INTO calls (key, times) VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET times = calls.times + 1", saga.KeyOf(ctx))
	pause(ctx, rand.N(30*time.Millisecond))
	return errors.Join(err, ctx.Err())
}

// serveDesk makes the process one that executes what nobody has begun.
func (p process) serveDesk() {
	o, err := saga.NewOrchestrator(saga.NewSQLStore(p.db, saga.Postgres, p.box, p.inbox), saga.Config{RecoverAfter: time.Second}, billing(ledger{p.db}))
	check(err)
	o.Attach(p.svc)
	p.svc.Add(eventbus.RunnerFunc(func(ctx context.Context) error {
		var workers sync.WaitGroup
		for range 4 {
			workers.Go(func() { p.executeTickets(ctx, o) })
		}
		workers.Wait()
		return nil
	}))
}

func (p process) executeTickets(ctx context.Context, o *saga.Orchestrator) {
	for ctx.Err() == nil {
		var body []byte
		err := p.db.QueryRowContext(ctx, `SELECT body FROM tickets AS t WHERE NOT EXISTS (SELECT 1 FROM millrace_saga AS s
			WHERE s.saga = 'billing' AND s.id = convert_to(t.id, 'UTF8')) ORDER BY random() LIMIT 1`).Scan(&body)
		if errors.Is(err, sql.ErrNoRows) {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		check(err)
		var order Order
		check(json.Unmarshal(body, &order))
		if _, err := saga.Execute(ctx, o, billing(ledger{}), order.ID, order); !errors.Is(err, saga.ErrExists) && ctx.Err() == nil {
			check(err)
		}
		report(reportHandled)
	}
}

// Sagas that were begun by saga.Execute, and of which no message is on its way
// anywhere, end although their processes are killed.
func TestKillsOfProcessesThatExecute(t *testing.T) {
	p := plan{sagas: 400, killEvery: 200 * time.Millisecond, kills: math.MaxInt}
	if full() {
		p.sagas = 4000
	}
	db := testdb.New(t, outbox.Postgres)
	store := saga.NewSQLStore(db.DB, saga.Postgres, outbox.New(db.DB, outbox.Postgres), newInbox(db.DB))
	for _, part := range []interface{ Migrate(context.Context) error }{outbox.New(db.DB, outbox.Postgres), newInbox(db.DB), store} {
		require.NoError(t, part.Migrate(t.Context()))
	}
	s := &scene{t: t, plan: p}
	s.exec(db.DB, deskTables...)
	for n := range p.sagas {
		o := Order{ID: fmt.Sprintf("order-%d", n), Fate: fates[n%len(fates)]}
		body, err := json.Marshal(o)
		require.NoError(t, err)
		_, err = db.Exec("INSERT INTO tickets (id, body) VALUES ($1, $2)", o.ID, string(body))
		require.NoError(t, err)
	}
	at := place{Service: desk, DSN: db.DSN, Bus: "memory:"}
	s.crew = newCrew(t, []place{at, at, at})
	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var killer sync.WaitGroup
	killer.Go(func() { s.crew.harass(ctx, p.killEvery, p.kills) })
	for left := 1; left > 0; <-time.After(50 * time.Millisecond) {
		require.NoError(t, db.QueryRow("SELECT $1 - count(*) FROM millrace_saga WHERE status IN ('completed', 'compensated')", p.sagas).Scan(&left))
		if took := time.Since(began); took > 3*patience {
			cancel()
			killer.Wait()
			t.Fatalf("after %v %d instances have not ended:\n%s", took, left, s.crew.logs())
		}
	}
	took := time.Since(began)
	cancel()
	killer.Wait()
	s.crew.stop()

	var wrong, recovered, repeated int
	require.NoError(t, db.QueryRow(`SELECT count(*) FROM millrace_saga AS s LEFT JOIN invoices AS i ON s.id = convert_to(i.order_id, 'UTF8')
		WHERE (s.status = 'completed') IS DISTINCT FROM NOT i.void`).Scan(&wrong))
	require.NoError(t, db.QueryRow("SELECT count(*) FROM millrace_saga_history WHERE event = 'recover'").Scan(&recovered))
	require.NoError(t, db.QueryRow("SELECT count(*) FROM calls WHERE times > 1").Scan(&repeated))
	require.Zero(t, wrong, "invoices that are not as their sagas have ended")
	require.Positive(t, recovered)
	t.Logf("%d sagas in %v, %d kills, %d instances taken up, %d calls made again", p.sagas, took.Round(time.Millisecond), s.crew.kills[desk], recovered, repeated)
}
