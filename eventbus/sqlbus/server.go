package sqlbus

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// server is an open database on a server.
type server struct {
	store
	flavour flavour
	db      *sql.DB
	cfg     Config

	// slots is half of the connections, for what may wait long for a topic: the
	// rest renews leases.
	slots chan struct{}

	id      string // begins the ids of batches
	batches atomic.Int64

	open    context.Context // ends with close
	stop    context.CancelFunc
	working sync.WaitGroup

	mu    sync.Mutex
	lanes map[string]*lane

	moving map[string]bool // topics of which due events are being moved; under mu
}

var _ engine = (*server)(nil)

const (
	// statementTimeout bounds each exchange with the server, so that a connection
	// that is half open is noticed.
	statementTimeout = 8 * time.Second
	// rollbackTimeout bounds the cleaning up, after which the connection is dropped.
	rollbackTimeout = 2 * time.Second
	// serverOpenTimeout bounds how long Open waits for a server.
	serverOpenTimeout = 8 * time.Second
)

func newServer(ctx context.Context, name string, f flavour, db *sql.DB, cfg Config) (*server, error) {
	db.SetMaxOpenConns(cfg.Connections)
	db.SetMaxIdleConns(cfg.Connections)
	db.SetConnMaxIdleTime(idleConnection)
	s := &server{flavour: f, db: db, cfg: cfg, id: rand.Text(), lanes: map[string]*lane{}, moving: map[string]bool{}, slots: make(chan struct{}, max(1, cfg.Connections/2))}
	s.store = store{name: name, dialect: f.dialect()}
	s.open, s.stop = context.WithCancel(context.Background())
	s.read = newSession(s.dialect, db)
	s.read.ctx, s.read.timeout = s.open, statementTimeout
	if err := s.prepare(ctx); err != nil {
		s.stop()
		_ = db.Close() // the first error counts
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer in time; check host, port and firewalls: %w", err)
		}
		return nil, s.explain(err)
	}
	return s, nil
}

// prepare connects and sees to the tables.
func (s *server) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, serverOpenTimeout)
	defer cancel()
	s.read.ctx = ctx
	defer func() { s.read.ctx = s.open }()
	err := s.setUp(ctx)
	if err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) { // MySQL's driver does not say so
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

func (s *server) setUp(ctx context.Context) error {
	if err := s.db.PingContext(ctx); err != nil {
		return err
	}
	if err := s.flavour.provision(ctx, s.db, !s.cfg.NoProvision); err != nil {
		return err
	}
	s.maxRow = s.flavour.maxRow()
	if err := s.readMeta(); err != nil {
		return err
	}
	for _, warning := range s.flavour.inspect(s.read) {
		s.cfg.Logger.Warn("sqlbus: accepted events may be lost in a crash of the server: "+warning, "database", s.name)
	}
	return nil
}

func (s *server) facts() *store { return &s.store }

// submit is engine.do and engine.publish.
func (s *server) submit(ctx context.Context, name string, commit func(*lane, []*op) error, o *op) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o.done = make(chan struct{})
	return s.enqueue(name, commit, o).await(ctx, o)
}

// enqueue looks the lane up and adds to it at once, or dropLanes might come between.
func (s *server) enqueue(name string, commit func(*lane, []*op) error, o *op) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[name]
	if l == nil {
		l = &lane{server: s}
		l.commit = func(batch []*op) error { return commit(l, batch) }
		s.lanes[name] = l
	}
	l.start(o)
	return l
}

// dropLanes forgets those that were not used for a while.
func (s *server) dropLanes(unused time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.lanes, func(_ string, l *lane) bool { return l.idleFor() > unused })
}

func (s *server) do(ctx context.Context, name string, run func(*session) error) error {
	return s.submit(ctx, "group "+name, (*lane).transact, &op{run: run})
}

// idleLane is when a lane that nobody uses is forgotten.
const idleLane = time.Minute

// tidy forgets batches of publishers that are gone. Those of the last day might
// still be asked for.
func (s *server) tidy(ctx context.Context) error {
	s.dropLanes(idleLane)
	return s.do(ctx, "tidy", func(tx *session) error {
		_, err := tx.exec("DELETE FROM millrace_batches WHERE written_at < {now} - ?", (24 * time.Hour).Microseconds())
		return err
	})
}

func (s *server) verdict(err error) verdict {
	if errors.Is(err, driver.ErrBusy) { // not the server's
		return refused
	}
	return s.flavour.verdict(err)
}

func (s *server) explain(err error) error {
	if err == nil {
		return nil
	}
	if meaning := s.flavour.meaning(err); meaning != "" && !errors.Is(err, errUnknown) {
		return fmt.Errorf("%s: %s: %w", s.name, meaning, err)
	}
	return fmt.Errorf("%s: %w", s.name, err)
}

func (s *server) close() error {
	s.stop()
	s.working.Wait()
	return s.db.Close()
}
