package sqlbus

import (
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func TestURLs(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, u := range []string{
		"sqlite:rel.db",
		"sqlite:new/dir/bus.db?lease=2s&retention=1h&poll=5ms&max_payload=100&provision=true",
		"sqlite:" + dir + "/abs.db",
		"sqlite://" + dir + "/abs3.db",
		"sqlite:odd%20%3Fname%23%25.db",
	} {
		b, err := driver.Open(t.Context(), u, driver.Options{Logger: quiet()})
		require.NoError(t, err, u)
		require.NoError(t, b.Publish("t", msg("k", 1)), u)
		require.NoError(t, b.Close(), u)
	}
	for _, name := range []string{"rel.db", "new/dir/bus.db", "abs.db", "abs3.db", "odd ?name#%.db"} {
		require.FileExists(t, filepath.Join(dir, name))
	}
}

func TestURLParametersReachTheConfig(t *testing.T) {
	b, err := driver.Open(t.Context(), "sqlite:"+tempPath(t)+"?lease=2s&retention=1h&poll=5ms&max_payload=100", driver.Options{Logger: quiet()})
	require.NoError(t, err)
	defer b.Close()
	c := b.(*Broker).cfg
	require.Equal(t, []any{2 * time.Second, time.Hour, 5 * time.Millisecond, 100}, []any{c.Lease, c.Retention, c.Poll, c.MaxPayload})
	require.Equal(t, driver.Capabilities{KeyOrder: true, KeyedConcurrency: true, Groups: true, Replay: true, Seek: true, Delay: true, DelayedRedelivery: true, Durable: true, MaxPayload: 100}, b.Capabilities())
}

func TestBadURLsAreRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	for u, want := range map[string]string{
		"sqlite:":                            "no path",
		"sqlite::memory:":                    "memory:",
		"sqlite:bus.db?lese=1s":              `did you mean "lease"`,
		"sqlite:bus.db?lease=1ms":            "from 1s to 1h",
		"sqlite://bus.db":                    "write sqlite:bus.db",
		"sqlite:bus.db#x":                    "%23",
		"sqlite:bus.db?provision=maybe":      "true or false",
		"sqlite:bus.db?poll=1h&retention=1s": "poll",
	} {
		_, err := driver.Open(t.Context(), u, driver.Options{})
		require.ErrorContains(t, err, want, u)
	}
	left, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, left, "a refused URL creates nothing")
}

func TestConfigReportsAllProblems(t *testing.T) {
	_, err := Open(t.Context(), tempPath(t), Config{Retention: -1, Lease: time.Millisecond, Poll: time.Hour, MaxPayload: -1})
	for _, field := range []string{"Retention", "Lease", "Poll", "MaxPayload"} {
		require.ErrorContains(t, err, field)
	}
}

func TestProvisionOff(t *testing.T) {
	path := tempPath(t)
	_, err := Open(t.Context(), path, Config{NoProvision: true})
	require.ErrorContains(t, err, path+" does not exist, and provisioning is off")
	require.NoFileExists(t, path)

	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.Exec("CREATE TABLE theirs (n INTEGER)")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	_, err = Open(t.Context(), path, Config{NoProvision: true})
	require.ErrorContains(t, err, "lacks the tables of a bus")

	openAt(t, path, Config{}) // beside other tables is fine
	openAt(t, path, Config{NoProvision: true})
}

func TestOpenRefusesWhatIsNoBus(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(t.Context(), dir, Config{})
	require.ErrorContains(t, err, dir+" is a directory")

	garbage := filepath.Join(dir, "garbage.db")
	require.NoError(t, os.WriteFile(garbage, []byte("this is no database, but it is long enough to look like one ......................................................"), 0o644))
	_, err = Open(t.Context(), garbage, Config{})
	require.ErrorContains(t, err, "sqlbus: open "+garbage+": the file is not a SQLite database")

	_, err = Open(t.Context(), filepath.Join(garbage, "bus.db"), Config{})
	require.ErrorContains(t, err, garbage)
}

func TestOpenRefusesADamagedFile(t *testing.T) {
	path := tempPath(t)
	b, err := Open(t.Context(), path, Config{Logger: quiet()})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, 3900), 110) // the schema, behind an intact header
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = Open(t.Context(), path, Config{})
	require.ErrorContains(t, err, path+": the database is damaged")
}

func TestOpenRefusesNewerTables(t *testing.T) {
	path := tempPath(t)
	b := openAt(t, path, Config{})
	require.NoError(t, fileOf(b).writer.do(t.Context(), 0, func(s *session) error {
		_, err := s.exec("UPDATE millrace_meta SET value = 99 WHERE name = 'schema'")
		return err
	}))
	_, err := Open(t.Context(), path, Config{})
	require.ErrorContains(t, err, "version 99")
}

func TestReadOnlyFileIsRefused(t *testing.T) {
	path := tempPath(t)
	openAt(t, path, Config{})
	// Root may write to anything, so SQLite itself is told not to.
	f := &file{store: store{name: path, dialect: sqliteDialect}}
	var err error
	f.writeDB, err = sql.Open("sqlite", dsn(path, "ro"))
	require.NoError(t, err)
	f.writeConn, err = f.writeDB.Conn(t.Context())
	require.NoError(t, err)
	defer f.disconnect()
	err = explain(path, f.prepareTables(true))
	require.ErrorContains(t, err, path+": the file can't be written to")
}

func TestManyOpenTheSameNewFile(t *testing.T) {
	path := tempPath(t)
	errs := make(chan error, 8)
	for range 8 {
		go func() {
			b, err := Open(t.Context(), path, Config{Logger: quiet()})
			if err == nil {
				err = b.Publish("t", msg("k", 1))
				_ = b.Close()
			}
			errs <- err
		}()
	}
	for range 8 {
		require.NoError(t, receive(t, errs))
	}
	require.Equal(t, 8, count(t, openAt(t, path, Config{}), "SELECT count(*) FROM millrace_events"))
}

func TestPathOf(t *testing.T) {
	u, err := url.Parse("sqlite:a%2Fb.db")
	require.NoError(t, err)
	path, err := pathOf(u)
	require.NoError(t, err)
	require.Equal(t, "a/b.db", path)
}

func TestCommitsAreSynced(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	var journal, synchronous string
	require.NoError(t, fileOf(b).writeConn.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&journal))
	require.NoError(t, fileOf(b).writeConn.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&synchronous))
	require.Equal(t, []string{"wal", "2"}, []string{journal, synchronous})
}
