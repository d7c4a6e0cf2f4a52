package brokerfaults

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/internal/testserver"
	"github.com/millrace-go/millrace/outbox"
)

// switchable is a publisher that can be told to refuse.
type switchable struct {
	mu      sync.Mutex
	refuse  bool
	refused int
	got     map[string]bool
}

func (s *switchable) Publish(_ string, messages ...*message.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse {
		s.refused++
		return errors.New("refused")
	}
	for _, m := range messages {
		s.got[m.UUID] = true
	}
	return nil
}

func (s *switchable) Close() error { return nil }

func (s *switchable) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// TestOutboxOnAServerThatForgets kills a server that confirms commits before
// they are on disk. The relay has read rows that are gone afterwards, and their
// positions are handed out again: what is written there must be published.
func TestOutboxOnAServerThatForgets(t *testing.T) {
	if os.Getenv("MILLRACE_FAULTS") == "" {
		t.Skip("set MILLRACE_FAULTS=short or full to kill the databases")
	}
	for server, hasty := range map[string]func(t *testing.T, db testdb.DB) *sql.DB{
		testserver.Postgres: hastyPostgres, testserver.MySQL: hastyMySQL,
	} {
		t.Run(server, func(t *testing.T) { outboxOnAServerThatForgets(t, server, hasty) })
	}
}

// hastyPostgres returns a pool whose commits don't wait for the disk.
func hastyPostgres(t *testing.T, db testdb.DB) *sql.DB {
	setting := func(statement string) {
		_, err := db.Exec(statement)
		require.NoError(t, err)
		_, err = db.Exec("SELECT pg_reload_conf()")
		require.NoError(t, err)
	}
	setting("ALTER SYSTEM SET wal_writer_delay = '10s'") // so that something is forgotten
	t.Cleanup(func() { setting("ALTER SYSTEM RESET wal_writer_delay") })
	hasty, err := sql.Open(db.Driver, db.DSN+"&synchronous_commit=off")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, hasty.Close()) })
	return hasty
}

// hastyMySQL lets all commits be hasty, until the server is restarted.
func hastyMySQL(t *testing.T, db testdb.DB) *sql.DB {
	for _, statement := range []string{"SET GLOBAL innodb_flush_log_at_timeout = 2700", "SET GLOBAL innodb_flush_log_at_trx_commit = 0"} {
		_, err := db.Exec(statement)
		require.NoError(t, err)
	}
	return db.DB
}

var dialects = map[string]outbox.Dialect{testserver.Postgres: outbox.Postgres, testserver.MySQL: outbox.MySQL}

func outboxOnAServerThatForgets(t *testing.T, server string, hasty func(t *testing.T, db testdb.DB) *sql.DB) {
	db := testdb.New(t, dialects[server])
	quiet := outbox.Logger(slog.New(slog.DiscardHandler))
	box := outbox.New(db.DB, db.Dialect, quiet)
	require.NoError(t, box.Migrate(t.Context()))
	write := func(box *outbox.Outbox, prefix string, n int) error {
		return box.Transact(t.Context(), func(_ context.Context, tx *sql.Tx) error {
			for i := range n {
				if err := box.In(tx).Publish("orders", message.NewMessage(fmt.Sprint(prefix, i), nil)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	to := &switchable{got: map[string]bool{}}
	arrived := func(prefix string, n int) func() bool {
		return func() (all bool) {
			to.with(func() {
				all = true
				for i := range n {
					all = all && to.got[fmt.Sprint(prefix, i)]
				}
			})
			return all
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- box.Relay(to, outbox.Lease(time.Minute)).Run(ctx) }()
	require.NoError(t, write(box, "before ", 10))
	require.Eventually(t, arrived("before ", 10), 30*time.Second, time.Millisecond)
	left := -1
	require.Eventually(t, func() bool {
		return db.QueryRow("SELECT count(*) FROM millrace_outbox").Scan(&left) == nil && left == 0
	},
		10*time.Second, 10*time.Millisecond, "the relay has nothing to write, which would take what was hasty to the disk")

	to.with(func() { to.refuse = true })
	hastyBox := outbox.New(hasty(t, db), db.Dialect, quiet)
	require.NoError(t, write(hastyBox, "forgotten ", 60))
	hastyBox.Poke()
	box.Poke()
	require.Eventually(t, func() (read bool) { to.with(func() { read = to.refused > 0 }); return read }, 30*time.Second, time.Millisecond)
	testserver.Kill(t, server)
	testserver.Start(t, server)
	require.Eventually(t, func() bool {
		return db.QueryRow("SELECT count(*) FROM millrace_outbox WHERE id LIKE 'forgotten%'").Scan(&left) == nil
	}, 20*time.Second, 10*time.Millisecond)
	to.with(func() { to.refuse = false })
	require.Eventually(t, func() bool { return write(box, "after ", 300) == nil }, 30*time.Second, 10*time.Millisecond)
	require.Eventually(t, arrived("after ", 300), 30*time.Second, 5*time.Millisecond, "all that the restarted server has confirmed")
	t.Logf("the server forgot %d of 60 events that the relay had read", 60-left)
	stop()
	require.NoError(t, <-done)
}
