package outbox_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

func refuseID(id string) func(string, []*message.Message) error {
	return func(_ string, messages []*message.Message) error {
		if slices.ContainsFunc(messages, func(m *message.Message) bool { return m.UUID == id }) {
			return errors.New("refused")
		}
		return nil
	}
}

// All that the relay may hold waits for one event that the broker refuses. That
// must stop neither other keys nor other topics, nor keep it from being parked.
func TestRefusedEventWithAHotKeyBehindItStopsNothing(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		hot := []*message.Message{msg("poison", "hot")}
		for i := range 100 {
			hot = append(hot, msg("h"+strconv.Itoa(i), "hot"))
		}
		enqueue(t, box, "orders", hot...)
		for i := range 20 {
			enqueue(t, box, "orders", msg("c"+strconv.Itoa(i), "cold"))
			enqueue(t, box, "bills", msg("b"+strconv.Itoa(i), ""))
		}
		to := newSink()
		to.setRefuse(refuseID("poison"))
		stop := start(t, box.Relay(to, outbox.InFlight(50), outbox.Attempts(4)))
		to.awaitCount(t, 140)
		require.NoError(t, stop())
		parked, err := box.Parked(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, parked, 1)
		var cold []string
		for _, p := range to.all() {
			if p.key == "cold" {
				cold = append(cold, p.id)
			}
		}
		require.Len(t, cold, 20)
		for i, id := range cold {
			require.Equal(t, "c"+strconv.Itoa(i), id, "in order, also those that went ahead")
		}
	})
}

func TestRelayThatHoldsOneEventAtATime(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		enqueue(t, box, "bad", msg("poison", "a"))
		for i := range 20 {
			enqueue(t, box, "good", msg("g"+strconv.Itoa(i), "k"+strconv.Itoa(i)))
		}
		to := newSink()
		to.setRefuse(refuseID("poison"))
		stop := start(t, box.Relay(to, outbox.InFlight(1), outbox.Attempts(3)))
		to.awaitCount(t, 20)
		require.NoError(t, stop())
	})
}

func TestMoreRefusedTopicsThanAnExpressionIsDeep(t *testing.T) {
	db := newDB(t)
	box := newBox(t, db)
	for i := range 1051 {
		enqueue(t, box, "bad"+strconv.Itoa(i), msg("p"+strconv.Itoa(i), "k"))
	}
	enqueue(t, box, "good", msg("g", "k"))
	to := newSink()
	to.setRefuse(func(topic string, _ []*message.Message) error {
		if topic != "good" {
			return errors.New("refused")
		}
		return nil
	})
	stop := start(t, box.Relay(to, outbox.InFlight(1050)))
	to.awaitCount(t, 1)
	require.NoError(t, stop())
}

// At READ UNCOMMITTED a relay would publish what is rolled back later.
func TestUncommittedReadsAreRefused(t *testing.T) {
	db := testdb.New(t, outbox.MySQL)
	box := newBox(t, db)
	require.NotNil(t, box)
	db.DSN += "?tx_isolation=%27READ-UNCOMMITTED%27"
	err := outbox.New(db.Open(t), db.Dialect).Relay(newSink()).Run(t.Context())
	require.ErrorContains(t, err, "is READ-UNCOMMITTED, which shows what may yet be rolled back")
}

// After TRUNCATE, or a restore without sequences, new events would be taken for
// published ones.
func TestLogWhosePositionsBeganAgainIsRefused(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		stop := start(t, box.Relay(to))
		enqueue(t, box, "orders", msg("1", ""), msg("2", ""))
		to.awaitCount(t, 2)
		require.NoError(t, stop())
		truncate := "TRUNCATE TABLE millrace_outbox"
		if db.Dialect == outbox.Postgres {
			truncate += " RESTART IDENTITY"
		}
		_, err := db.Exec(truncate)
		require.NoError(t, err)
		enqueue(t, box, "orders", msg("3", ""))
		err = box.Relay(to).Run(t.Context())
		require.ErrorContains(t, err, "positions have begun again below 2, up to which all is published")
		_, err = db.Exec("UPDATE millrace_outbox_relay SET published = 0, gaps = '', swept = 0") // as it says
		require.NoError(t, err)
		stop = start(t, box.Relay(to))
		to.awaitCount(t, 3)
		require.NoError(t, stop())
	})
}

func TestCancelledPublishLeavesTheBacklogBounded(t *testing.T) {
	box := newBox(t, newDB(t), outbox.MaxBacklog(3))
	nowhere := box.Via(func(context.Context, string, ...any) error { return nil })
	enqueue(t, box, "orders", msg("1", ""), msg("2", ""), msg("3", ""))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	eventually(t, "the backlog is full", func() bool {
		m := msg("4", "")
		m.SetContext(ctx)
		return errors.Is(nowhere.Publish("orders", m), outbox.ErrBacklog)
	})
}

// A transaction with rows between those of thousands of others is one gap after
// the other. Looking for them must not hold up the rest.
func TestManyGapsOfOneOpenTransaction(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		stop := start(t, box.Relay(to))
		const rows = 1500
		late := openTx(t, db, box, "orders", msg("late", ""))
		for i := range rows {
			enqueue(t, box, "orders", msg(strconv.Itoa(i), ""))
			require.NoError(t, box.In(late).Publish("orders", msg("late"+strconv.Itoa(i), "")))
		}
		to.awaitCount(t, rows)
		began := time.Now()
		for i := range 50 {
			enqueue(t, box, "orders", msg("more", ""))
			to.awaitCount(t, rows+i+1)
		}
		t.Logf("%v from commit to publisher, %d gaps open", time.Since(began)/50, rows)
		require.NoError(t, late.Commit())
		to.awaitCount(t, 2*rows+51)
		require.NoError(t, stop())
	})
}
