package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

func TestMain(m *testing.M) {
	if childMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

const pragmas = "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"

// open opens an SQLite file.
func open(t testing.TB, path string) testdb.DB {
	t.Helper()
	db := testdb.DB{Dialect: outbox.SQLite, Driver: "sqlite", DSN: "file:" + path + pragmas}
	db.DB = db.Open(t)
	return db
}

// newDB is for what concerns SQLite alone, or no database in particular.
func newDB(t testing.TB) testdb.DB {
	return open(t, filepath.Join(t.TempDir(), "test.db"))
}

func newBox(t testing.TB, db testdb.DB, opts ...outbox.Option) *outbox.Outbox {
	t.Helper()
	box := outbox.New(db.DB, db.Dialect, append([]outbox.Option{outbox.Logger(slog.New(slog.DiscardHandler))}, opts...)...)
	require.NoError(t, box.Migrate(t.Context()))
	return box
}

func msg(id, key string) *message.Message {
	m := &message.Message{UUID: id, Metadata: message.Metadata{}, Payload: []byte("payload of " + id)}
	if key != "" {
		m.Metadata[driver.MetadataKey] = key
	}
	return m
}

// enqueue writes messages in one transaction and wakes the relay.
func enqueue(t testing.TB, box *outbox.Outbox, topic string, messages ...*message.Message) {
	t.Helper()
	require.NoError(t, box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		if len(messages) > 0 {
			messages[0].SetContext(ctx)
		}
		return box.In(tx).Publish(topic, messages...)
	}))
}

// start runs a relay until stop is called, which returns Run's error.
func start(t testing.TB, r *outbox.Relay) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return stop
}

// published is what a sink has accepted.
type published struct {
	topic, id, key string
	metadata       map[string]string
	payload        string
}

// sink is a publisher that records; refuse decides about each call.
type sink struct {
	mu      sync.Mutex
	changed chan struct{}
	got     []published
	calls   int
	refuse  func(topic string, messages []*message.Message) error
}

func newSink() *sink { return &sink{changed: make(chan struct{})} }

func (s *sink) Close() error { return nil }

func (s *sink) Publish(topic string, messages ...*message.Message) error {
	s.mu.Lock()
	refuse := s.refuse
	s.calls++
	s.mu.Unlock()
	var err error
	if refuse != nil {
		err = refuse(topic, messages)
	}
	var partial *driver.BatchError
	if err != nil && !errors.As(err, &partial) {
		s.change(nil)
		return err
	}
	var accepted []published
	for i, m := range messages {
		if partial == nil || partial.Errs[i] == nil {
			accepted = append(accepted, published{topic, m.UUID, driver.Key(m), m.Metadata, string(m.Payload)})
		}
	}
	s.change(accepted)
	return err
}

func (s *sink) change(accepted []published) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, accepted...)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *sink) setRefuse(f func(topic string, messages []*message.Message) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

func (s *sink) all() []published {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]published(nil), s.got...)
}

func (s *sink) ids() []string {
	var ids []string
	for _, p := range s.all() {
		ids = append(ids, p.id)
	}
	return ids
}

// await waits until done holds for what was accepted.
func (s *sink) await(t testing.TB, what string, done func(got []published) bool) []published {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		got, changed := append([]published(nil), s.got...), s.changed
		s.mu.Unlock()
		if done(got) {
			return got
		}
		select {
		case <-changed:
		case <-limit:
			require.FailNow(t, "not seen in time: "+what, "got %d: %.300s", len(got), fmt.Sprint(got))
		}
	}
}

func (s *sink) awaitCount(t testing.TB, n int) []published {
	t.Helper()
	return s.await(t, fmt.Sprintf("%d events", n), func(got []published) bool { return len(got) >= n })
}

// eventually polls a condition of the database.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	require.Eventually(t, done, 30*time.Second, 5*time.Millisecond, what)
}

func count(t testing.TB, db testdb.DB, query string, args ...any) int {
	t.Helper()
	var n int
	require.NoError(t, db.QueryRow(db.Dialect.Rebind(query), args...).Scan(&n))
	return n
}
