package outboxcrash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/faultdb"
	"github.com/millrace-go/millrace/outbox"
)

// run is a scenario in tables of its own.
type run struct {
	*trigger
	db      *sql.DB // undisturbed
	dsn     string
	dialect dialect.Dialect
	prefix  string
	started bool // a process has been, which had the trigger
}

var discard = slog.New(slog.DiscardHandler)

// newRun returns a run and what ends it. On SQLite it has a file of its own,
// which need not outlive the machine.
func (p *place) newRun(g *trigger) (r *run, end func(), err error) {
	n := p.runs.Add(1)
	r = &run{trigger: g, db: p.db.DB, dsn: p.db.DSN, dialect: p.db.Dialect, prefix: fmt.Sprintf("run%d", n)}
	if r.dialect != outbox.SQLite {
		return r, func() {}, nil
	}
	r.dsn = "file:" + filepath.Join(p.t.TempDir(), r.prefix+".db") +
		"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_txlock=immediate"
	if r.db, err = sql.Open("sqlite", r.dsn); err != nil {
		return nil, nil, err
	}
	return r, func() { _ = r.db.Close() }, nil
}

// process starts the next life of the program; the fault happens in the first.
func (r *run) process() (*faultdb.Process, error) {
	var decide func(string) faultdb.Fault
	if !r.started {
		r.started = true
		decide = r.decide
	}
	return faultdb.Open(r.db.Driver(), r.dsn, decide)
}

func (r *run) box(db *sql.DB, opts ...outbox.Option) *outbox.Outbox {
	return outbox.New(db, r.dialect, append(opts, outbox.Table(r.prefix+"_box"), outbox.Logger(discard))...)
}

// strings returns the first column of a query on the undisturbed database.
func (r *run) strings(query string, args ...any) ([]string, error) {
	rows, err := r.db.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s []byte
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, string(s))
	}
	return all, rows.Err()
}

func (r *run) exec(statements ...string) error {
	for _, s := range statements {
		if _, err := r.db.Exec(s); err != nil {
			return err
		}
	}
	return nil
}

// patience bounds how long a run may take to come to its end; a busy machine slows
// all of those side by side.
const patience = 2 * time.Minute

var errStuck = errors.New("it does not come to its end")

// closing joins the error of c with another one.
func closing(err error, c io.Closer) error { return errors.Join(err, c.Close()) }

// transact runs fn in a transaction on the undisturbed database.
func (r *run) transact(fn func(tx *sql.Tx) error) error {
	return r.dialect.Transact(context.Background(), r.db, fn)
}
