package outbox_test

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

func TestReplayOfKeptEvents(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		typed := func(id, key, kind string) *message.Message {
			m := msg(id, key)
			m.Metadata[eventbus.MetadataType] = kind
			return m
		}
		for i := range 2500 {
			n := strconv.Itoa(i)
			if i%2 == 0 {
				enqueue(t, box, "orders", typed(n, "k"+strconv.Itoa(i%10), "placed"))
			} else {
				enqueue(t, box, "bills", typed(n, "", "sent"))
			}
			if i >= 20 { // enough of single transactions
				break
			}
		}
		var rest []*message.Message
		for i := 21; i < 2500; i++ {
			rest = append(rest, typed(strconv.Itoa(i), "", "sent"))
		}
		enqueue(t, box, "bills", rest...)
		first := newSink()
		stop := start(t, box.Relay(first, outbox.Retention(time.Hour)))
		first.awaitCount(t, 2500)
		require.NoError(t, stop())
		enqueue(t, box, "orders", msg("not published", "k0"))

		replay := func(q outbox.ReplayQuery) (*sink, outbox.ReplayResult) {
			to := newSink()
			r, err := box.Replay(t.Context(), to, q)
			require.NoError(t, err)
			return to, r
		}
		all, r := replay(outbox.ReplayQuery{})
		require.EqualValues(t, 2500, r.Matched)
		require.Equal(t, r.End, r.Position)
		for i, p := range all.all() {
			require.Equal(t, strconv.Itoa(i), p.id, "in the order of the log")
			require.Equal(t, "payload of "+p.id, p.payload)
		}
		steps := 0
		dry, r := replay(outbox.ReplayQuery{DryRun: true, Progress: func(outbox.ReplayResult) { steps++ }})
		require.EqualValues(t, 2500, r.Matched)
		require.Empty(t, dry.all())
		require.Equal(t, 3, steps)
		byTopic, _ := replay(outbox.ReplayQuery{Topic: "orders"})
		require.Len(t, byTopic.all(), 11)
		byKey, _ := replay(outbox.ReplayQuery{Topic: "orders", Key: "k0"})
		require.Equal(t, []string{"0", "10", "20"}, byKey.ids())
		byType, _ := replay(outbox.ReplayQuery{Type: "placed"})
		require.Len(t, byType.all(), 11)
		none, _ := replay(outbox.ReplayQuery{From: time.Now().Add(time.Minute)})
		require.Empty(t, none.all())
		none, _ = replay(outbox.ReplayQuery{To: time.Now().Add(-time.Minute)})
		require.Empty(t, none.all())

		broken := newSink()
		broken.setRefuse(func(_ string, m []*message.Message) error {
			if slices.ContainsFunc(m, func(m *message.Message) bool { return m.UUID == "1021" }) {
				return errors.New("down")
			}
			return nil
		})
		r, err := box.Replay(t.Context(), broken, outbox.ReplayQuery{})
		require.ErrorContains(t, err, "outbox: replay millrace_outbox: after position ")
		require.ErrorContains(t, err, "down")
		again, _ := replay(outbox.ReplayQuery{After: r.Position})
		require.Contains(t, again.ids(), "1021", "it goes on where it has stopped")
		require.Equal(t, "2499", again.ids()[len(again.ids())-1])
	})
	box := newBox(t, newDB(t))
	_, err := box.Replay(t.Context(), nil, outbox.ReplayQuery{})
	require.EqualError(t, err, "outbox: replay millrace_outbox: the publisher is nil")
}
