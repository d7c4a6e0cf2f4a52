// Package faultdb lets a test fail or kill a program at any of its statements.
//
// A [Process] stands for one life of a program: the *sql.DB it uses, and whatever
// else it does that may fail. Every statement is a point with a name; a test
// decides at which one something happens. A process that was killed does nothing
// any more: its connections are closed, so that the database rolls back what was
// open, and all that it tries fails.
package faultdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
)

// Fault is what happens at a point.
type Fault int

// The faults.
const (
	// None lets the operation happen.
	None Fault = iota
	// FailBefore is an error instead of the operation.
	FailBefore
	// FailAfter is an error after the operation has taken effect, as when its answer
	// is lost. The connection breaks.
	FailAfter
	// KillBefore ends the process instead of the operation.
	KillBefore
	// KillAfter ends the process after the operation has taken effect.
	KillAfter
)

// String returns the fault's name.
func (f Fault) String() string {
	return [...]string{"none", "fail before", "fail after", "kill before", "kill after"}[f]
}

var (
	// ErrInjected is the error of FailBefore and FailAfter.
	ErrInjected = errors.New("faultdb: an error was injected")
	// ErrKilled is the error of whatever a process tries that was killed.
	ErrKilled = errors.New("faultdb: the process was killed")
)

// Process is one life of a program. It is safe for concurrent use.
type Process struct {
	db     *sql.DB
	decide func(op string) Fault

	mu    sync.Mutex
	dead  chan struct{}
	conns map[*conn]struct{}
	ends  sync.WaitGroup // connections that Kill closes
}

// Open starts a process on a database. decide is called for every operation,
// with a name: "exec", "query", "prepare", a space and the text of the statement,
// or "begin", "commit", "rollback", or what Do is given. It may be nil.
func Open(d driver.Driver, dsn string, decide func(op string) Fault) (*Process, error) {
	base, err := connectorOf(d, dsn)
	if err != nil {
		return nil, err
	}
	if decide == nil {
		decide = func(string) Fault { return None }
	}
	p := &Process{decide: decide, dead: make(chan struct{}), conns: map[*conn]struct{}{}}
	p.db = sql.OpenDB(&connector{p, base})
	return p, nil
}

// DB returns the database as the process sees it. Its Driver is the real one.
func (p *Process) DB() *sql.DB { return p.db }

// Dead is closed when the process was killed.
func (p *Process) Dead() <-chan struct{} { return p.dead }

// Do is an operation of another kind, such as a call to a broker.
func (p *Process) Do(op string, effect func() error) error {
	_, err := p.do(op, effect)
	return err
}

// do returns broken if a connection should not be used any more.
func (p *Process) do(op string, effect func() error) (broken bool, err error) {
	if p.killed() {
		return true, ErrKilled
	}
	switch fault := p.decide(op); fault {
	case FailBefore:
		return false, ErrInjected
	case FailAfter:
		if err := effect(); err != nil {
			return false, err
		}
		return true, ErrInjected
	case KillBefore, KillAfter:
		if fault == KillAfter {
			_ = effect()
		}
		p.Kill()
		return true, ErrKilled
	}
	return false, effect()
}

func (p *Process) killed() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// Kill ends the process. Operations that are running come to their end, which
// Close waits for.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed() {
		return
	}
	close(p.dead)
	for c := range p.conns {
		p.ends.Go(c.cut)
	}
}

// Close kills the process and waits until its connections are closed.
func (p *Process) Close() error {
	p.Kill()
	p.ends.Wait()
	return p.db.Close()
}

func (p *Process) add(c *conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed() {
		return ErrKilled
	}
	p.conns[c] = struct{}{}
	return nil
}

func (p *Process) remove(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

type connector struct {
	p    *Process
	base driver.Connector
}

func (c *connector) Driver() driver.Driver { return c.base.Driver() }

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	if c.p.killed() {
		return nil, ErrKilled
	}
	base, err := c.base.Connect(ctx)
	if err != nil {
		return nil, err
	}
	wrapped := &conn{p: c.p, base: base}
	if err := c.p.add(wrapped); err != nil {
		_ = base.Close()
		return nil, err
	}
	return wrapped, nil
}

// connectorOf is what sql.Open does.
func connectorOf(d driver.Driver, dsn string) (driver.Connector, error) {
	if d, ok := d.(driver.DriverContext); ok {
		return d.OpenConnector(dsn)
	}
	return plainConnector{d, dsn}, nil
}

type plainConnector struct {
	d   driver.Driver
	dsn string
}

func (c plainConnector) Connect(context.Context) (driver.Conn, error) { return c.d.Open(c.dsn) }
func (c plainConnector) Driver() driver.Driver                        { return c.d }
