// Package storetest has what the tests of all SQL stores need beside the
// conformance suite.
package storetest

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/saga"
)

// Published reads the log of an outbox, and what is due later.
func Published(t *testing.T, db *sql.DB) (all []saga.Message) {
	t.Helper()
	for _, from := range []string{"0 AS due FROM millrace_outbox", "due_at FROM millrace_outbox_scheduled"} {
		rows, err := db.Query("SELECT topic, id, metadata, payload, " + from + " ORDER BY position")
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var topic, id string
			var metadata, payload []byte
			var due int64
			require.NoError(t, rows.Scan(&topic, &id, &metadata, &payload, &due))
			m := message.NewMessage(id, payload)
			m.Metadata, err = driver.DecodeMetadata(metadata)
			require.NoError(t, err)
			if due > 0 {
				driver.SetDue(m, time.UnixMilli(due))
			}
			all = append(all, saga.Message{Topic: topic, Message: m})
		}
		require.NoError(t, rows.Err())
	}
	return all
}

// Relay is that of an outbox.
type Relay interface {
	Run(ctx context.Context) error
	Active() bool
}

// CommitWakesTheRelay checks that the first message of a transition is published
// at once by a relay that is not going to look for it. transition returns the one
// of an instance that makes it the given revision.
func CommitWakesTheRelay(t *testing.T, s saga.Store, open func(to message.Publisher) Relay, transition func(id string, revision int64) saga.Commit) {
	t.Helper()
	to := make(arrivals, 10)
	relay := open(to)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-done) }()
	require.Eventually(t, relay.Active, 10*time.Second, time.Millisecond)
	for revision := range int64(4) { // the relay may be looking already when the first comes
		c := transition("1", revision+1)
		if revision%2 == 1 {
			c.EventID = ""
		}
		require.NoError(t, s.Commit(t.Context(), c))
		select {
		case id := <-to:
			require.Equal(t, c.Messages[0].Message.UUID, id)
		case <-time.After(10 * time.Second):
			require.FailNow(t, "the relay was not woken")
		}
	}
}

// arrivals hands out the ids of what is published.
type arrivals chan string

func (a arrivals) Publish(_ string, messages ...*message.Message) error {
	for _, m := range messages {
		a <- m.UUID
	}
	return nil
}

func (arrivals) Close() error { return nil }
