package saga_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/saga"
)

// warehouse is a participant with a table of its own.
type warehouse struct {
	t    *testing.T
	db   testdb.DB
	bus  *eventbus.Bus
	stop func()
}

func openWarehouse(t *testing.T, db testdb.DB) *warehouse {
	ctx, cancel := context.WithCancel(t.Context())
	bus, err := eventbus.Open(ctx, "memory:")
	require.NoError(t, err)
	inbox := idempotency.NewInbox(db.DB, db.Dialect)
	barrier := idempotency.NewBarrier(db.DB, db.Dialect, idempotency.BarrierConfig{})
	require.NoError(t, inbox.Migrate(ctx))
	require.NoError(t, barrier.Migrate(ctx))
	_, err = db.ExecContext(ctx, "CREATE TABLE log (what VARCHAR(100) NOT NULL)")
	require.NoError(t, err)

	w := &warehouse{t: t, db: db, bus: bus}
	p := saga.NewParticipant(inbox, barrier)
	svc := eventbus.NewService("warehouse", bus, eventbus.Logger(discard))
	writes := func(what string) func(context.Context, *sql.Tx, string) error {
		return func(ctx context.Context, tx *sql.Tx, step string) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO log (what) VALUES ('"+what+" "+step+"')")
			return err
		}
	}
	eventbus.Subscribe(svc, reserve, saga.HandleAction(p, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[reserveStock]) error {
		if step := e.Metadata[saga.MetadataStep]; step == "refuse" {
			return errors.Join(p.Refuse(ctx, tx, e.Metadata), writes("refused")(ctx, tx, step))
		}
		return writes("reserved")(ctx, tx, e.Metadata[saga.MetadataStep])
	}, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[reserveStock]) error {
		return writes("answered again")(ctx, tx, e.Metadata[saga.MetadataStep])
	}))
	eventbus.Subscribe(svc, release, saga.HandleCompensation(p, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[releaseStock]) error {
		return writes("released")(ctx, tx, e.Metadata[saga.MetadataStep])
	}, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[releaseStock]) error {
		return writes("nothing to release")(ctx, tx, e.Metadata[saga.MetadataStep])
	}))
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	<-svc.Ready()
	w.stop = func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, bus.Close())
	}
	return w
}

// command sends a command for a step of instance 1, as an orchestrator does.
func command[C any](w *warehouse, topic eventbus.Topic[C], step, id string) {
	var c C
	require.NoError(w.t, topic.Publish(w.t.Context(), w.bus, c, eventbus.WithID(id), eventbus.WithKey("1"),
		eventbus.WithMetadata(saga.MetadataSaga, "s"), eventbus.WithMetadata(saga.MetadataInstance, "1"), eventbus.WithMetadata(saga.MetadataStep, step)))
}

func (w *warehouse) log() (all []string) {
	rows, err := w.db.QueryContext(w.t.Context(), "SELECT what FROM log ORDER BY what")
	require.NoError(w.t, err)
	defer rows.Close()
	for rows.Next() {
		var what string
		require.NoError(w.t, rows.Scan(&what))
		all = append(all, what)
	}
	require.NoError(w.t, rows.Err())
	return all
}

func (w *warehouse) await(want ...string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return fmt.Sprint(w.log()) == fmt.Sprint(want) }, 30*time.Second, time.Millisecond, "want %v", want)
}

// Compensation arriving before the action, and the action after its
// compensation (dtm#559).
func TestTrapNullCompensationAndHangingAction(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		w := openWarehouse(t, db)
		defer w.stop()
		command(w, release, "a", "undo a")
		w.await("nothing to release a")
		command(w, reserve, "a", "do a")
		command(w, reserve, "b", "do b") // after it, for another step
		w.await("nothing to release a", "reserved b")
	})
}

// A loop of states sends its command again and means another one.
func TestAnewIsAnotherCommandForAParticipant(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		w := openWarehouse(t, db)
		defer w.stop()
		d := loopOfStates(saga.Do("ask", saga.Send(reserve, func(order) reserveStock { return reserveStock{} })))
		o, err := saga.NewOrchestrator(saga.NewMemoryStore(w.bus), saga.Config{}, d)
		require.NoError(t, err)
		_, err = saga.Execute(t.Context(), o, d, "1", order{})
		require.NoError(t, err)
		for _, signal := range []string{"again", "again", "anew"} {
			require.NoError(t, o.Signal(t.Context(), "loop", "1", signal, nil))
		}
		w.await("answered again ask", "reserved ask", "reserved ask#2")
	})
}

func TestParticipantDoesEachStepOnce(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		w := openWarehouse(t, db)
		defer w.stop()
		command(w, reserve, "a", "do a")
		command(w, reserve, "a", "do a")       // delivered again
		command(w, reserve, "a", "do a again") // the orchestrator's second attempt
		command(w, reserve, "a#2", "do a#2")   // the next round of a loop
		w.await("answered again a", "reserved a", "reserved a#2")
		command(w, release, "a", "undo a")
		command(w, release, "a", "undo a again")
		command(w, release, "a#2", "undo a#2")
		w.await("answered again a", "nothing to release a", "released a", "released a#2", "reserved a", "reserved a#2")
	})
}

// A refusal can come too late: its step is compensated like one of which nobody
// knows whether it was done.
func TestRefusedActionIsNotCompensated(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		w := openWarehouse(t, db)
		defer w.stop()
		command(w, reserve, "refuse", "do refuse")
		command(w, reserve, "refuse", "do refuse again")
		w.await("refused refuse")
		command(w, release, "refuse", "undo refuse")
		w.await("nothing to release refuse", "refused refuse")
		command(w, reserve, "refuse", "do refuse once more")
		command(w, reserve, "b", "do b") // after it
		w.await("nothing to release refuse", "refused refuse", "reserved b")
	})
}

// Behind the pivot a refused step is tried again, and a participant that never
// does what it has refused must see that it is asked anew.
func TestStepRefusedBehindThePivotIsAskedForAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := saga.Definition[order]{Name: "s", Version: 1, Steps: []saga.Node[order]{
			saga.Pivot[order]{},
			saga.Step[order]{
				Name: "reserve", Do: saga.Send(reserve, func(order) reserveStock { return reserveStock{} }),
				Success: saga.On[order](reserved, func(e stockReserved) string { return e.OrderID }, nil),
				Failure: saga.On[order](out, func(e outOfStock) string { return e.OrderID }, nil), Timeout: time.Minute,
			},
		}}
		r := newRig(t, d)
		var asked []string
		on(r, reserve, func(ctx context.Context, id string, e eventbus.Event[reserveStock]) error {
			step := e.Metadata[saga.MetadataStep]
			asked = append(asked, step)
			switch {
			case len(asked) == 1:
				return nil // no answer
			case step == "reserve:3":
				return reserved.Publish(ctx, r.h.Bus(), stockReserved{id}, saga.Answering(e.Metadata))
			case step == "reserve:2": // the first refusal comes twice
				old := eventbus.WithMetadata(saga.MetadataStep, "reserve")
				if err := out.Publish(ctx, r.h.Bus(), outOfStock{id}, old); err != nil {
					return err
				}
			}
			return out.Publish(ctx, r.h.Bus(), outOfStock{id}, saga.Answering(e.Metadata))
		})
		r.start()
		require.NoError(t, saga.Start(t.Context(), r.h.Bus(), d, "1", order{}))
		r.pass(time.Hour)
		r.requireStatus(saga.Completed, "s", "1")
		require.Equal(t, []string{"reserve", "reserve", "reserve:2", "reserve:3"}, asked)
	})
}
