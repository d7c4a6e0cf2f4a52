package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

func TestPublishedAsItWasWritten(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		stop := start(t, box.Relay(to))
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		m := &message.Message{UUID: "id-1", Payload: every, Metadata: message.Metadata{
			driver.MetadataKey: "k\xff\x00", string(every): string(every[128:]), "": "", "empty": "",
		}}
		empty := &message.Message{UUID: "id-2"}
		enqueue(t, box, "orders", m, empty)
		got := to.awaitCount(t, 2)
		require.Equal(t, published{"orders", "id-1", "k\xff\x00", m.Metadata, string(every)}, got[0])
		require.Equal(t, published{"orders", "id-2", "", map[string]string{}, ""}, got[1])
		require.NoError(t, stop())
		require.Zero(t, count(t, db, "SELECT count(*) FROM millrace_outbox"), "published rows are deleted by the time Run returns")
	})
}

func TestTypedEventTravelsThroughTheOutbox(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db, outbox.Source("billing"))
		bus, err := eventbus.Open(t.Context(), "memory:")
		require.NoError(t, err)
		defer func() { require.NoError(t, bus.Close()) }()
		topic := eventbus.NewTopic[string]("greetings", eventbus.KeyBy(func(s string) string { return s }))
		got := make(chan eventbus.Event[string], 1)
		svc := eventbus.NewService("reader", bus)
		eventbus.Subscribe(svc, topic, func(_ context.Context, e eventbus.Event[string]) error { got <- e; return nil })
		svc.Add(box.Relay(bus, outbox.Poll(time.Hour))) // only a poke can wake it
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- svc.Run(ctx) }()
		<-svc.Ready()
		require.NoError(t, box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			return topic.Publish(ctx, box.In(tx), "hello")
		}))
		e := <-got
		require.Equal(t, "hello", e.Data)
		require.Equal(t, "billing", e.Source)
		require.Equal(t, "hello", e.Key)
		cancel()
		require.NoError(t, <-done)
	})
}

func TestRollbacksAreNeverPublishedAndConcurrentWritersKeepKeyOrder(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		stop := start(t, box.Relay(to))
		const writers, each = 6, 60
		rollback := errors.New("no")
		var mu sync.Mutex
		want := map[string][]string{}
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(uint64(w), 1))
				for n := range each {
					key, ids := fmt.Sprintf("w%d-%d", w, random.IntN(3)), []string(nil)
					err := box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
						var batch []*message.Message
						for i := range 1 + random.IntN(4) {
							m := msg(fmt.Sprintf("%d-%d-%d", w, n, i), key)
							m.SetContext(ctx)
							batch, ids = append(batch, m), append(ids, m.UUID)
						}
						if err := box.In(tx).Publish("orders", batch...); err != nil {
							return err
						}
						if random.Float64() < 0.3 {
							return rollback
						}
						return nil
					})
					if err == nil {
						mu.Lock()
						want[key] = append(want[key], ids...)
						mu.Unlock()
					} else if !errors.Is(err, rollback) {
						t.Errorf("writer %d: %v", w, err)
					}
				}
			})
		}
		wg.Wait()
		total := 0
		for _, ids := range want {
			total += len(ids)
		}
		to.awaitCount(t, total)
		require.NoError(t, stop())
		got := map[string][]string{}
		for _, p := range to.all() {
			got[p.key] = append(got[p.key], p.id)
		}
		require.Equal(t, want, got)
	})
}

func TestAnyNumberOfMessagesInOnePublish(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		tx, err := db.Begin()
		require.NoError(t, err)
		var batch []*message.Message
		for i := range 2500 {
			batch = append(batch, msg(strconv.Itoa(i), "k"))
		}
		require.NoError(t, box.In(tx).Publish("orders", batch...))
		require.NoError(t, box.In(tx).Close(), "Close must not end the transaction")
		require.NoError(t, tx.Commit())
		rows, err := db.Query("SELECT id FROM millrace_outbox ORDER BY position")
		require.NoError(t, err)
		defer rows.Close()
		for i := 0; rows.Next(); i++ {
			var id string
			require.NoError(t, rows.Scan(&id))
			require.Equal(t, strconv.Itoa(i), id, "rows must keep the order of the call")
		}
		require.NoError(t, rows.Err())
		require.Equal(t, 2500, count(t, db, "SELECT count(*) FROM millrace_outbox"))
	})
}

func TestBadInputIsRefusedWhenItIsWritten(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		tx, err := db.Begin()
		require.NoError(t, err)
		defer func() { _ = tx.Rollback() }()
		badDue := msg("e1", "")
		badDue.Metadata[driver.MetadataDue] = "tomorrow"
		for name, c := range map[string]struct {
			to    message.Publisher
			topic string
			m     *message.Message
			text  string
		}{
			"empty topic": {box.In(tx), "", msg("e1", ""), `outbox: enqueue topic "": invalid name: topic "": use 1 to 249`},
			"bad topic":   {box.In(tx), "a b", msg("e1", ""), `outbox: enqueue topic "a b": invalid name`},
			"nil message": {box.In(tx), "a", nil, `outbox: enqueue topic "a" event : the message is nil`},
			"no id":       {box.In(tx), "a", msg("", ""), `the message has no UUID`},
			"bad due":     {box.In(tx), "a", badDue, `outbox: enqueue topic "a" event e1: driver: event e1: metadata millrace_due: "tomorrow" is not an RFC 3339 time`},
			"nil tx":      {box.In(nil), "a", msg("e1", ""), `In was given a nil transaction`},
		} {
			t.Run(name, func(t *testing.T) {
				err := c.to.Publish(c.topic, c.m)
				require.ErrorContains(t, err, c.text)
				require.True(t, driver.IsPermanent(err))
			})
		}
		require.NoError(t, box.In(tx).Publish("a"), "no messages are no error")
	})
}

func TestWrongArgumentsAreReportedByEveryUse(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		for _, box := range []*outbox.Outbox{
			outbox.New(nil, outbox.SQLite),
			outbox.New(db.DB, outbox.Dialect{}),
			outbox.New(db.DB, db.Dialect, outbox.Table("a; DROP TABLE b")),
			outbox.New(db.DB, db.Dialect, outbox.Table(strings.Repeat("x", 41))),
		} {
			ctx := t.Context()
			require.ErrorContains(t, box.Migrate(ctx), "outbox: New: ")
			require.ErrorContains(t, box.In(nil).Publish("t", msg("e", "")), "outbox: New: ")
			require.ErrorContains(t, box.Transact(ctx, nil), "outbox: New: ")
			require.ErrorContains(t, box.Relay(newSink()).Run(ctx), "outbox: New: ")
			_, err := box.Stats(ctx)
			require.ErrorContains(t, err, "outbox: New: ")
			_, err = box.Parked(ctx, 1)
			require.ErrorContains(t, err, "outbox: New: ")
			_, err = box.Unpark(ctx, "x")
			require.ErrorContains(t, err, "outbox: New: ")
			require.Empty(t, box.Schema())
			box.Poke()
		}
	})
}

func TestMissingTablesAreAClearError(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := outbox.New(db.DB, db.Dialect)
		require.ErrorContains(t, box.Relay(newSink()).Run(t.Context()), "call Migrate, or apply Schema")
		err := box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			return box.In(tx).Publish("orders", msg("e1", ""))
		})
		require.ErrorContains(t, err, `outbox: enqueue topic "orders" event e1:`)
		require.ErrorContains(t, err, "call Migrate, or apply Schema")
		_, err = box.Stats(t.Context())
		require.ErrorContains(t, err, "call Migrate, or apply Schema")
	})
}

func TestRelayReportsWrongArguments(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		require.ErrorContains(t, box.Relay(nil).Run(t.Context()), "the publisher is nil")
		err := box.Relay(newSink(), outbox.Workers(0), outbox.Attempts(1), outbox.Poll(0)).Run(t.Context())
		require.ErrorContains(t, err, "Workers must be at least 1, got 0")
		require.ErrorContains(t, err, "Attempts must be at least 2, got 1")
		require.ErrorContains(t, err, "Poll must be positive, got 0s")
	})
}

func TestMigrateBySeveralProcessesAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	var wg sync.WaitGroup
	for range 8 {
		box := outbox.New(open(t, path).DB, outbox.SQLite)
		wg.Go(func() {
			for range 3 {
				if err := box.Migrate(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	db := open(t, path)
	_, err := db.Exec(outbox.New(db.DB, db.Dialect).Schema())
	require.NoError(t, err, "the schema may be applied again")
	require.Equal(t, 1, count(t, db, "SELECT count(*) FROM millrace_outbox_relay"))
}

func TestTablesOfANewerVersionAreRefused(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		_, err := db.Exec("UPDATE millrace_outbox_relay SET version = 2")
		require.NoError(t, err)
		require.ErrorContains(t, box.Relay(newSink()).Run(t.Context()), "newer version of Millrace")
	})
}

func TestTransactRollsBackOnErrorAndPanic(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		insert := func(ctx context.Context, tx *sql.Tx) { require.NoError(t, box.In(tx).Publish("orders", msg("e1", ""))) }
		own := errors.New("own")
		require.Same(t, own, box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error { insert(ctx, tx); return own }))
		require.PanicsWithValue(t, "boom", func() {
			_ = box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error { insert(ctx, tx); panic("boom") })
		})
		err := box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error { return tx.Rollback() })
		require.ErrorIs(t, err, sql.ErrTxDone)
		ctx, cancel := context.WithCancel(t.Context())
		err = box.Transact(ctx, func(ctx context.Context, tx *sql.Tx) error { insert(ctx, tx); cancel(); return nil })
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, count(t, db, "SELECT count(*) FROM millrace_outbox"))
	})
}

func TestPublishHonoursTheContextOfTheFirstMessage(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		tx, err := db.Begin()
		require.NoError(t, err)
		defer func() { _ = tx.Rollback() }()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		m := msg("e1", "")
		m.SetContext(ctx)
		require.ErrorIs(t, box.In(tx).Publish("orders", m), context.Canceled)
	})
}

// A program may have a pool for its writer and another for readers.
func TestTransactionOfAnotherPoolOnTheSameDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	box, other := newBox(t, open(t, path)), open(t, path)
	for i := range 3 {
		tx, err := other.Begin()
		require.NoError(t, err)
		require.NoError(t, box.In(tx).Publish("orders", msg(strconv.Itoa(i), "")))
		require.NoError(t, tx.Commit())
	}
	require.Equal(t, 3, count(t, other, "SELECT count(*) FROM millrace_outbox"))
}

func TestSeveralOutboxesInOneDatabase(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		a, b := newBox(t, db, outbox.Table("a")), newBox(t, db, outbox.Table("b"))
		toA, toB := newSink(), newSink()
		stopA, stopB := start(t, a.Relay(toA)), start(t, b.Relay(toB))
		enqueue(t, a, "orders", msg("a1", ""))
		enqueue(t, b, "orders", msg("b1", ""))
		require.Equal(t, "a1", toA.awaitCount(t, 1)[0].id)
		require.Equal(t, "b1", toB.awaitCount(t, 1)[0].id)
		require.NoError(t, stopA())
		require.NoError(t, stopB())
	})
}

func TestStats(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		s, err := box.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, outbox.Stats{}, s)
		late := msg("e3", "")
		due := time.Now().Add(time.Hour).Truncate(time.Millisecond)
		driver.SetDue(late, due)
		enqueue(t, box, "orders", msg("e1", ""), msg("e2", ""), late)
		s, err = box.Stats(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2, s.Pending)
		require.EqualValues(t, 1, s.Scheduled)
		require.WithinDuration(t, due, s.NextDue, 0)
		require.Less(t, s.OldestPending, time.Minute)
		require.Zero(t, s.Parked)
	})
}
