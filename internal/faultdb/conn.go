package faultdb

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"slices"
	"sync"
)

// conn is a connection of a process. Its mutex keeps Kill from closing it in the
// middle of an operation, which not every driver bears.
type conn struct {
	p    *Process
	base driver.Conn

	mu     sync.Mutex
	broken bool
	open   []io.Closer // statements and rows of base
}

var (
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.NamedValueChecker  = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
)

// do runs an operation unless something happens to it.
func (c *conn) do(op string, effect func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return c.why()
	}
	broken, err := c.p.do(op, effect)
	if broken {
		c.breakUp()
	}
	return err
}

// quietly runs what is no point of its own.
func (c *conn) quietly(effect func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return c.why()
	}
	if c.p.killed() {
		return ErrKilled
	}
	return effect()
}

// why is the error of a broken connection. It is not driver.ErrBadConn, after
// which database/sql would try again by itself.
func (c *conn) why() error {
	if c.p.killed() {
		return ErrKilled
	}
	return errBroken
}

var errBroken = errors.New("faultdb: the connection is broken")

// breakUp closes the connection without a word to the database. SQLite keeps one
// alive, with its locks, as long as a statement is.
func (c *conn) breakUp() {
	if c.broken {
		return
	}
	c.broken = true
	for _, o := range slices.Backward(c.open) { // rows before their statement
		_ = o.Close()
	}
	_ = c.base.Close()
}

// opened and closed keep account of what breakUp must close; the mutex is held.
func (c *conn) opened(o io.Closer) { c.open = append(c.open, o) }

func (c *conn) closed(o io.Closer) error {
	return c.quietly(func() error {
		c.open = slices.DeleteFunc(c.open, func(other io.Closer) bool { return other == o })
		return o.Close()
	})
}

func (c *conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.breakUp()
}

// Close is part of driver.Conn.
func (c *conn) Close() error {
	c.p.remove(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return nil
	}
	c.broken = true
	return c.base.Close()
}

// IsValid is part of driver.Validator.
func (c *conn) IsValid() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken || c.p.killed() {
		return false
	}
	v, ok := c.base.(driver.Validator)
	return !ok || v.IsValid()
}

// ResetSession is part of driver.SessionResetter.
func (c *conn) ResetSession(ctx context.Context) error {
	return c.quietly(func() error {
		if r, ok := c.base.(driver.SessionResetter); ok {
			return r.ResetSession(ctx)
		}
		return nil
	})
}

// Ping is part of driver.Pinger.
func (c *conn) Ping(ctx context.Context) error {
	return c.quietly(func() error {
		if p, ok := c.base.(driver.Pinger); ok {
			return p.Ping(ctx)
		}
		return nil
	})
}

// CheckNamedValue is part of driver.NamedValueChecker.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.base.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// ExecContext is part of driver.ExecerContext.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (res driver.Result, err error) {
	e, ok := c.base.(driver.ExecerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	err = c.do("exec "+query, func() error {
		res, err = e.ExecContext(ctx, query, args)
		return err
	})
	return res, err
}

// QueryContext is part of driver.QueryerContext.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	q, ok := c.base.(driver.QueryerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	return c.query("query "+query, func() (driver.Rows, error) { return q.QueryContext(ctx, query, args) })
}

func (c *conn) query(op string, run func() (driver.Rows, error)) (driver.Rows, error) {
	var base driver.Rows
	err := c.do(op, func() (err error) {
		if base, err = run(); err == nil {
			c.opened(base)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &rows{c, base}, nil
}

// Prepare is part of driver.Conn.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext is part of driver.ConnPrepareContext.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	var base driver.Stmt
	err := c.do("prepare "+query, func() (err error) {
		if p, ok := c.base.(driver.ConnPrepareContext); ok {
			base, err = p.PrepareContext(ctx, query)
		} else {
			base, err = c.base.Prepare(query)
		}
		if err == nil {
			c.opened(base)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &stmt{c, base, query}, nil
}

// Begin is part of driver.Conn.
func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx is part of driver.ConnBeginTx.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	var base driver.Tx
	err := c.do("begin", func() (err error) {
		if b, ok := c.base.(driver.ConnBeginTx); ok {
			base, err = b.BeginTx(ctx, opts)
		} else {
			base, err = c.base.Begin() //nolint:staticcheck // there is nothing else
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &tx{c, base}, nil
}

// tx is a transaction. When its end fails so does the connection: otherwise a
// transaction would stay open on one that is used again.
type tx struct {
	c    *conn
	base driver.Tx
}

// Commit is part of driver.Tx.
func (t *tx) Commit() error { return t.end("commit", t.base.Commit) }

// Rollback is part of driver.Tx.
func (t *tx) Rollback() error { return t.end("rollback", t.base.Rollback) }

func (t *tx) end(op string, effect func() error) error {
	err := t.c.do(op, effect)
	if errors.Is(err, ErrInjected) {
		t.c.cut()
	}
	return err
}
