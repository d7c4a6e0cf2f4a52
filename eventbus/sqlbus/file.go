package sqlbus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the database/sql driver
)

// openTimeout bounds how long Open waits for other processes that hold the file.
const openTimeout = 15 * time.Second

// file is an open database file: one connection that writes, a few that read.
type file struct {
	store
	writeDB   *sql.DB
	writeConn *sql.Conn
	readDB    *sql.DB
	write     *session
	writer    *writer
}

var _ engine = (*file)(nil)

func openFile(ctx context.Context, path string, provision bool) (*file, error) {
	if err := checkExists(path, provision); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	f := &file{store: store{name: path, dialect: sqliteDialect}}
	err := retryBusy(ctx, func() error { return f.connect(ctx, provision) })
	if err != nil {
		_ = f.disconnect() // the first error counts
		return nil, explain(path, err)
	}
	return f, nil
}

// checkExists gives the errors that SQLite would only call "unable to open".
func checkExists(path string, provision bool) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !provision:
		return notProvisionedError(path + " does not exist, and provisioning is off: create it by opening it once with provisioning")
	}
	return os.MkdirAll(filepath.Dir(path), 0o755)
}

func dsn(path, mode string, pragmas ...string) string {
	q := url.Values{"mode": {mode}, "_txlock": {"immediate"}}
	q["_pragma"] = append([]string{"busy_timeout(2000)"}, pragmas...)
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q.Encode()}).String()
}

func (f *file) connect(ctx context.Context, provision bool) (err error) {
	if err := f.disconnect(); err != nil { // of the attempt before
		return err
	}
	mode := "rw"
	if provision {
		mode = "rwc"
	}
	// journal_size_limit gives the space back that a burst took.
	f.writeDB, err = sql.Open("sqlite", dsn(f.name, mode, "journal_mode(WAL)", "synchronous(FULL)", "journal_size_limit(67108864)"))
	if err != nil {
		return err
	}
	f.writeDB.SetMaxOpenConns(1)
	if f.writeConn, err = f.writeDB.Conn(ctx); err != nil {
		return err
	}
	f.write = newSession(sqliteDialect, f.writeConn)
	if err := f.prepareTables(provision); err != nil {
		return err
	}
	if f.readDB, err = sql.Open("sqlite", dsn(f.name, "rw", "query_only(1)")); err != nil {
		return err
	}
	f.readDB.SetMaxOpenConns(4)
	f.readDB.SetMaxIdleConns(4)
	f.read = newSession(sqliteDialect, f.readDB)
	return f.readMeta()
}

// close releases what is open. It may be called again, and on half an open file.
func (f *file) disconnect() error {
	var errs []error
	if f.read != nil {
		f.read.close()
	}
	if f.readDB != nil {
		errs = append(errs, f.readDB.Close())
	}
	if f.write != nil {
		f.write.close()
	}
	if f.writeConn != nil {
		errs = append(errs, f.writeConn.Close())
	}
	if f.writeDB != nil {
		errs = append(errs, f.writeDB.Close())
	}
	*f = file{store: store{name: f.name, dialect: sqliteDialect}}
	return errors.Join(errs...)
}

func (f *file) facts() *store { return &f.store }

// watch starts the writer.
func (f *file) watch(b *Broker) {
	f.writer = newWriter(f, b.cfg.Poll, b.changed)
	go f.writer.loop()
}

func (f *file) do(ctx context.Context, _ string, run func(*session) error) error {
	return f.writer.do(ctx, 0, run)
}

func (f *file) publish(ctx context.Context, topic string, rows []row, size int) error {
	return f.writer.do(ctx, size, func(s *session) error { return insert(s, topic, rows) })
}

func (f *file) moveDue(ctx context.Context) error {
	return f.writer.do(ctx, 0, func(s *session) error { return moveDue(s, time.Now().UnixMicro()) })
}

func (f *file) tidy(context.Context) error { return nil }

func (f *file) explain(err error) error { return explain(f.name, err) }

func (f *file) close() error {
	f.writer.close()
	return f.disconnect()
}

// insert appends rows to the log, or to the table of what is due later.
func insert(s *session, topic string, rows []row) error {
	now := time.Now().UnixMicro()
	for i := range rows {
		r := &rows[i]
		var err error
		if r.due == 0 {
			_, err = s.exec("INSERT INTO millrace_events (topic, partition, key, id, metadata, payload, published_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
				topic, r.partition, r.key, r.id, r.metadata, r.payload, now)
		} else {
			_, err = s.exec("INSERT INTO millrace_due (due_at, topic, partition, key, id, metadata, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
				r.due, topic, r.partition, r.key, r.id, r.metadata, r.payload)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func moveDue(s *session, now int64) error {
	first := fmt.Sprintf(" FROM millrace_due WHERE due_at <= ? ORDER BY due_at, seq LIMIT %d", dueStep)
	_, err := s.exec("INSERT INTO millrace_events (topic, partition, key, id, metadata, payload, published_at) SELECT topic, partition, key, id, metadata, payload, ?"+first, now, now)
	if err != nil {
		return err
	}
	_, err = s.exec("DELETE FROM millrace_due WHERE seq IN (SELECT seq"+first+")", now)
	return err
}
