package sqlbus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// stall takes positions for an event in a transaction that stays open.
func stall(t *testing.T, b *Broker, topic, key, payload string) (commit func()) {
	t.Helper()
	s := b.engine.(*server)
	conn, err := s.db.Conn(t.Context())
	require.NoError(t, err)
	rows, _, _ := b.rows([]*message.Message{msg(key, payload)})
	_, err = conn.ExecContext(t.Context(), s.flavour.begin())
	require.NoError(t, err)
	query, args := s.flavour.insert(topic, "", "", rows, false)
	_, err = conn.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
	return func() {
		_, err := conn.ExecContext(t.Context(), "COMMIT")
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
}

// SQL: reading by auto-increment id skips rows that commit late.
func TestReadingByPositionSkipsNothingThatCommitsLate(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b, other := openOn(t, url, Config{}), openOn(t, url, Config{})
		got := make(chan *driver.Delivery, 10)
		start(t, b, driver.Subscription{Handle: into(got)})
		require.NoError(t, b.Publish("t", msg("k", "zero")))
		require.Equal(t, "zero", text(receive(t, got)))

		commit := stall(t, other, "t", "k", "first")
		published := make(chan error, 1)
		go func() { published <- b.Publish("t", msg("k", "second")) }()
		require.NoError(t, b.Publish("another", msg("k", "x")), "the lock is that of one topic")
		silent(t, published, 200*time.Millisecond)
		silent(t, got, 0)
		commit()
		require.NoError(t, receive(t, published))
		require.Equal(t, "first", text(receive(t, got)))
		require.Equal(t, "second", text(receive(t, got)))
	})
}

// Whoever reads what follows the last position that was seen sees everything.
func TestPositionsBecomeVisibleInOrder(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		brokers := []*Broker{openOn(t, url, Config{}), openOn(t, url, Config{}), openOn(t, url, Config{})}
		const publishers, each = 6, 100
		var publishing sync.WaitGroup
		for p := range publishers {
			publishing.Go(func() {
				for i := range each {
					if err := brokers[p%len(brokers)].Publish("t", msg(fmt.Sprint(p), fmt.Sprintf("%d-%d", p, i))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		s, last, seen := brokers[0].store, int64(0), 0
		eventually(t, "all events", func() bool {
			err := s.read.each(s.dialect.tail, []any{"t", last, 10000}, func(rows *sql.Rows) (bool, error) {
				var topic string
				var partition int
				err := rows.Scan(&last, &topic, &partition)
				seen++
				return true, err
			})
			require.NoError(t, err)
			return seen == publishers*each
		})
		publishing.Wait()
		require.Equal(t, publishers*each, count(t, brokers[0], "SELECT count(*) FROM millrace_events"))
	})
}

func TestABatchOfThousandsIsOneTransaction(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b := openOn(t, url, Config{})
		big := batch(12000)
		for _, m := range big[:8] {
			m.Payload = make([]byte, 1<<20)
		}
		driver.SetDue(big[100], time.Now().Add(time.Hour))
		require.NoError(t, b.Publish("t", big...))
		require.Equal(t, len(big)-1, count(t, b, "SELECT count(*) FROM millrace_events"))
		require.Equal(t, 1, count(t, b, "SELECT count(*) FROM millrace_due"))
		var ids []string
		require.NoError(t, b.store.read.each("SELECT id FROM millrace_events ORDER BY position", nil, func(rows *sql.Rows) (bool, error) {
			var id string
			err := rows.Scan(&id)
			ids = append(ids, id)
			return true, err
		}))
		for i, id := range ids {
			if i >= 100 {
				i++ // which is due later
			}
			require.Equal(t, big[i].UUID, id)
		}
	})
}

// A statement that is still on its way when its answer is given up, and what is
// found out about it, agree: it is in the log, or never will be.
func TestABatchThatIsSettledStaysSettled(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b := openOn(t, url, Config{})
		require.NoError(t, b.Publish("t", msg("k", "zero")))
		s := b.engine.(*server)
		commit := stall(t, b, "t", "k", "first")
		rows, _, _ := b.rows([]*message.Message{msg("k", "second")})
		late, settled := make(chan error, 1), make(chan error, 1)
		lost := errors.New("the answer got lost")
		go func() {
			late <- s.onConnection(patience, func(ctx context.Context, conn *sql.Conn) error {
				query, args := s.flavour.insert("t", "batch", "", rows, true)
				_, err := conn.ExecContext(ctx, query, args...)
				return err
			})
		}()
		silent(t, late, 100*time.Millisecond)
		go func() { settled <- s.settle("batch", lost, func(error) {}) }()
		<-time.After(100 * time.Millisecond) // either may be first
		commit()
		lateErr, settledErr := receive(t, late), receive(t, settled)
		require.Equal(t, lateErr == nil, settledErr == nil, "late: %v, settled: %v", lateErr, settledErr)
		want := 3
		if settledErr != nil {
			require.ErrorIs(t, settledErr, lost)
			want = 2
		}
		require.Equal(t, want, count(t, b, "SELECT count(*) FROM millrace_events"))
		require.Equal(t, settledErr, s.settle("batch", lost, func(error) {}), "the answer is the same when asked again")
	})
}
