package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

// openTx begins a transaction that has published and is not committed.
func openTx(t *testing.T, db testdb.DB, box *outbox.Outbox, topic string, messages ...*message.Message) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	require.NoError(t, box.In(tx).Publish(topic, messages...))
	return tx
}

// A relay that is stopped while it waits for room for late rows must not forget
// those of them that it has not taken.
func TestRelayStoppedWhileLateRowsWaitForRoomLosesNone(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		late := openTx(t, db, box, "orders", msg("late1", "a"), msg("late2", "b"), msg("late3", "c"))
		enqueue(t, box, "orders", msg("early", "d"))

		to := newSink()
		reached := make(chan string, 10)
		to.setRefuse(func(_ string, m []*message.Message) error {
			if m[0].UUID == "stuck" || strings.HasPrefix(m[0].UUID, "late") {
				reached <- m[0].UUID
				<-m[0].Context().Done() // it is accepted in the last moment
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		relay := box.Relay(to, outbox.InFlight(2), outbox.Workers(2), outbox.Batch(1), outbox.DrainTimeout(0), outbox.Lease(time.Minute))
		go func() { done <- relay.Run(ctx) }()
		to.awaitCount(t, 1)
		eventually(t, "progress is recorded", func() bool {
			s, err := box.Stats(t.Context())
			return err == nil && s.Pending == 0
		})
		enqueue(t, box, "orders", msg("stuck", "d"))
		require.Equal(t, "stuck", <-reached)
		require.NoError(t, late.Commit())
		require.Equal(t, "late1", <-reached) // late2 waits for room now
		cancel()
		require.NoError(t, <-done)
		to.setRefuse(nil)
		stop := start(t, box.Relay(to))
		to.await(t, "the late events", func(got []published) bool {
			return slices.ContainsFunc(got, func(p published) bool { return p.id == "late3" })
		})
		require.NoError(t, stop())
	})
}

// An event that the relay tries ahead of its turn, because all that it holds is
// refused, must not overtake an earlier one of its key that committed late.
func TestDetourDoesNotOvertakeALateEventOfItsKey(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		late := openTx(t, db, box, "accepted", msg("first", "k"))
		for i := range 5 {
			enqueue(t, box, "refused", msg(fmt.Sprint(i), fmt.Sprint(i)))
		}
		to := newSink()
		calls := make(chan struct{}, 1000)
		to.setRefuse(func(topic string, _ []*message.Message) error {
			if topic != "refused" {
				return nil
			}
			select {
			case calls <- struct{}{}:
			default:
			}
			return fmt.Errorf("refused")
		})
		stop := start(t, box.Relay(to, outbox.InFlight(3), outbox.Batch(1), outbox.DrainTimeout(0)))
		for range 6 { // its hands are full
			<-calls
		}
		require.NoError(t, late.Commit())
		enqueue(t, box, "accepted", msg("second", "k"))
		got := to.awaitCount(t, 2)
		require.NoError(t, stop())
		require.Equal(t, []string{"first", "second"}, []string{got[0].id, got[1].id})
	})
}

// On MySQL an INSERT may stall between taking its position and writing its row.
// Then nothing is locked and nothing is there, so that the relay only looks for
// it now and then; it must find it before a later event of its key nevertheless.
// The INSERT is played by one that names its position.
func TestEventOfAStalledInsertIsNotOvertaken(t *testing.T) {
	db := testdb.New(t, outbox.MySQL)
	box := newBox(t, db)
	enqueue(t, box, "orders", msg("0", "other"))
	enqueue(t, box, "orders", msg("taken", "k"))
	_, err := db.Exec("DELETE FROM millrace_outbox WHERE id = 'taken'") // position 2 is missing
	require.NoError(t, err)
	enqueue(t, box, "orders", msg("3", "other"))
	to := newSink()
	stop := start(t, box.Relay(to))
	to.awaitCount(t, 2)

	for i := range 20 {
		enqueue(t, box, "orders", msg(fmt.Sprint("more", i), "other"))
		to.awaitCount(t, 3+i)
	}
	_, err = db.Exec("INSERT INTO millrace_outbox (position, topic, created_at, id, `key`, metadata, payload) " +
		"SELECT 2, topic, created_at, 'first', 'k', metadata, payload FROM millrace_outbox LIMIT 1")
	require.NoError(t, err)
	enqueue(t, box, "orders", msg("second", "k"))
	got := to.await(t, "both", func(got []published) bool {
		return slices.ContainsFunc(got, func(p published) bool { return p.id == "first" }) && slices.ContainsFunc(got, func(p published) bool { return p.id == "second" })
	})
	require.NoError(t, stop())
	place := func(id string) int { return slices.IndexFunc(got, func(p published) bool { return p.id == id }) }
	require.Less(t, place("first"), place("second"))
}
