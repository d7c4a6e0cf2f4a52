package outbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

const childEnv = "MILLRACE_OUTBOX_TEST_CHILD"

// childMain is the process that TestKillAtAnyInstant kills: it writes numbered
// events of eight keys and relays them into a file, until killed.
func childMain() bool {
	dir := os.Getenv(childEnv)
	if dir == "" {
		return false
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "box.db")+pragmas)
	check(err)
	to, err := openLines(filepath.Join(dir, "broker.log"))
	check(err)
	box := outbox.New(db, outbox.SQLite, outbox.Logger(slog.New(slog.DiscardHandler)))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				check(box.Transact(context.Background(), func(ctx context.Context, tx *sql.Tx) error {
					return writeNumbered(ctx, tx, box)
				}))
			}
		})
	}
	check(box.Relay(to, killLease).Run(context.Background()))
	wg.Wait()
	return true
}

var killLease = outbox.Lease(300 * time.Millisecond)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// writeNumbered counts a key up in a business table and publishes the numbers.
func writeNumbered(ctx context.Context, tx *sql.Tx, box *outbox.Outbox) error {
	key := fmt.Sprintf("k%d", rand.IntN(8))
	var batch []*message.Message
	for range 1 + rand.IntN(3) {
		var n int
		err := tx.QueryRow("INSERT INTO counters VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET n = n + 1 RETURNING n", key).Scan(&n)
		if err != nil {
			return err
		}
		m := &message.Message{UUID: fmt.Sprintf("%s %d", key, n), Metadata: message.Metadata{driver.MetadataKey: key}}
		m.SetContext(ctx)
		batch = append(batch, m)
	}
	return box.In(tx).Publish("numbers", batch...)
}

// lines is a broker that keeps ids in a file.
type lines struct{ f *os.File }

func openLines(path string) (*lines, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	return &lines{f}, err
}

func (l *lines) Publish(_ string, messages ...*message.Message) error {
	var b bytes.Buffer
	for _, m := range messages {
		b.WriteString("\n" + m.UUID + ";")
	}
	_, err := l.f.Write(b.Bytes())
	return err
}

func (l *lines) Close() error { return l.f.Close() }

// A SIGKILL at any instant loses no event, and keeps the order of each key
// apart from repeating its latest events.
func TestKillAtAnyInstant(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "box.db"))
	box := newBox(t, db)
	_, err := db.Exec("CREATE TABLE counters (key TEXT PRIMARY KEY, n INTEGER NOT NULL)")
	require.NoError(t, err)
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	for range rounds {
		killChild(t, dir)
	}
	to, err := openLines(filepath.Join(dir, "broker.log"))
	require.NoError(t, err)
	defer func() { require.NoError(t, to.Close()) }()
	stop := start(t, box.Relay(to, killLease))
	eventually(t, "everything is published", func() bool {
		s, err := box.Stats(t.Context())
		return err == nil && s.Pending == 0
	})
	require.NoError(t, stop())
	total, repeats := verifyNumbers(t, db, filepath.Join(dir, "broker.log"))
	t.Logf("%d kills, %d events, %d repeats", rounds, total, repeats)
	require.NotZero(t, total)
}

func killChild(t *testing.T, dir string) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+dir)
	var stderr bytes.Buffer
	child.Stderr = &stderr
	require.NoError(t, child.Start())
	timer := time.AfterFunc(400*time.Millisecond+rand.N(500*time.Millisecond), func() { _ = child.Process.Kill() })
	defer timer.Stop()
	require.ErrorContains(t, child.Wait(), "signal: killed", stderr.String())
}

func verifyNumbers(t *testing.T, db testdb.DB, path string) (total, repeats int) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	last := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var key string
		var n int
		if id, whole := strings.CutSuffix(strings.TrimSpace(line), ";"); whole {
			_, err := fmt.Sscanf(id, "%s %d", &key, &n)
			require.NoError(t, err, line)
		} else {
			continue // cut short by the kill
		}
		if n <= last[key] {
			repeats++
			continue
		}
		require.Equal(t, last[key]+1, n, "key %s skips an event", key)
		last[key] = n
		total++
	}
	rows, err := db.Query("SELECT key, n FROM counters")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var key string
		var n int
		require.NoError(t, rows.Scan(&key, &n))
		require.Equal(t, n, last[key], "committed events of key %s", key)
	}
	require.NoError(t, rows.Err())
	return total, repeats
}
