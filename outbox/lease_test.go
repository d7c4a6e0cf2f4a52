package outbox_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

// Two nodes relay the same row (spring-modulith#663).
func TestOneRelayOfManyIsActiveAndAnotherTakesOverAtOnceWhenItStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	to := newSink()
	boxes := []*outbox.Outbox{}
	var stops []func() error
	for i := range 3 {
		box := newBox(t, open(t, path))
		boxes = append(boxes, box)
		own := &tagged{sink: to, tag: strconv.Itoa(i)}
		stops = append(stops, start(t, box.Relay(own, outbox.Poll(10*time.Millisecond))))
	}
	sent := 0
	for round := range 3 {
		for range 20 {
			sent++
			enqueue(t, boxes[2], "orders", msg(strconv.Itoa(sent), "k"+strconv.Itoa(sent%3)))
		}
		got := to.awaitCount(t, sent)
		owner := got[len(got)-1].metadata["relay"]
		for _, p := range got[round*20:] {
			require.Equal(t, owner, p.metadata["relay"])
		}
		i, _ := strconv.Atoi(owner)
		began := time.Now()
		require.NoError(t, stops[i]())
		if round < 2 {
			sent++
			enqueue(t, boxes[2], "orders", msg(strconv.Itoa(sent), "next"))
			to.awaitCount(t, sent)
			require.Less(t, time.Since(began), 5*time.Second, "a released lease is not waited for")
			sent-- // keep the rounds even
			to.mu.Lock()
			to.got = to.got[:len(to.got)-1]
			to.mu.Unlock()
		}
	}
}

// tagged marks what a relay publishes.
type tagged struct {
	*sink
	tag string
}

func (p *tagged) Publish(topic string, messages ...*message.Message) error {
	for _, m := range messages {
		m.Metadata["relay"] = p.tag
	}
	return p.sink.Publish(topic, messages...)
}

// Claims without a fencing token; recovery only at start.
func TestStalledRelayIsFencedOutAndNeverMovesTheCursorBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db := open(t, path)
	box := newBox(t, db)
	stalled, release := make(chan struct{}), make(chan struct{})
	first, second := newSink(), newSink()
	first.setRefuse(func(_ string, messages []*message.Message) error {
		close(stalled)
		<-messages[0].Context().Done() // it must end before the lease does
		<-release
		return nil
	})
	stopFirst := start(t, box.Relay(first, outbox.Lease(time.Second), outbox.Workers(1)))
	enqueue(t, box, "orders", msg("1", "k"), msg("2", "k"))
	<-stalled
	_, err := db.Exec("UPDATE millrace_outbox_relay SET lease_until = 0, token = token + 1") // as if another had taken it
	require.NoError(t, err)
	stopSecond := start(t, newBox(t, open(t, path)).Relay(second, outbox.Lease(time.Second)))
	second.awaitCount(t, 2)
	require.Equal(t, []string{"1", "2"}, second.ids())
	close(release)
	enqueue(t, box, "orders", msg("3", "k"))
	second.awaitCount(t, 3)
	require.NotContains(t, first.ids(), "2", "a fenced relay takes up nothing more")
	require.NoError(t, stopFirst())
	require.NoError(t, stopSecond())
	require.Zero(t, count(t, db, "SELECT count(*) FROM millrace_outbox"))
}

func TestStandbyTakesOverWithinTheLeaseOfADeadRelay(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		_, err := db.Exec(db.Dialect.Rebind("UPDATE millrace_outbox_relay SET owner = 'dead', token = 7, lease_until = ?"), time.Now().Add(700*time.Millisecond).UnixMilli())
		require.NoError(t, err)
		enqueue(t, box, "orders", msg("1", "k"))
		to := newSink()
		began := time.Now()
		stop := start(t, box.Relay(to))
		to.awaitCount(t, 1)
		require.GreaterOrEqual(t, time.Since(began), 650*time.Millisecond)
		require.Equal(t, 8, count(t, db, "SELECT token FROM millrace_outbox_relay"))
		require.NoError(t, stop())
		require.Zero(t, count(t, db, "SELECT lease_until FROM millrace_outbox_relay"), "a clean stop releases the lease")
	})
}

func TestIdleRelayKeepsItsLease(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		stop := start(t, box.Relay(newSink(), outbox.Lease(200*time.Millisecond)))
		eventually(t, "a relay is active", func() bool { return count(t, db, "SELECT token FROM millrace_outbox_relay") == 1 })
		until := count(t, db, "SELECT lease_until FROM millrace_outbox_relay")
		eventually(t, "the lease is renewed many times", func() bool {
			return count(t, db, "SELECT lease_until FROM millrace_outbox_relay") > until+600
		})
		require.Equal(t, 1, count(t, db, "SELECT token FROM millrace_outbox_relay"))
		require.NoError(t, stop())
	})
}

func TestRelaysOnOneOutboxInOneProcessMayComeAndGo(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		ctx, cancel := context.WithCancel(t.Context())
		var relays sync.WaitGroup
		for i := range 3 {
			relays.Go(func() {
				for ctx.Err() == nil {
					turn, end := context.WithTimeout(ctx, time.Duration(20+30*i)*time.Millisecond)
					if err := box.Relay(to, outbox.Poll(5*time.Millisecond)).Run(turn); err != nil {
						t.Error(err)
					}
					end()
				}
			})
		}
		for i := range 150 {
			enqueue(t, box, "orders", msg(strconv.Itoa(i), "k"))
		}
		got := to.awaitCount(t, 150)
		cancel()
		relays.Wait()
		for i, p := range got {
			require.Equal(t, strconv.Itoa(i), p.id, "clean stops neither repeat nor reorder: %s", strings.Join(to.ids(), " "))
		}
		require.Len(t, to.all(), 150, fmt.Sprint(to.ids()))
	})
}
