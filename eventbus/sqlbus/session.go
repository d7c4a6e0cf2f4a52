package sqlbus

import (
	"context"
	"database/sql"
	"sync"
	"time"
)

// background is for SQLite's statements: each is short, and a context that can
// end would cost a goroutine per statement.
var background = context.Background()

// runner is a connection, or a pool of them.
type runner interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// session runs statements of the dialect's marks.
type session struct {
	dialect *dialect
	on      runner
	ctx     context.Context // of a transaction
	timeout time.Duration   // of each statement; 0: none

	mu    sync.Mutex
	stmts map[string]*prepared
}

type prepared struct {
	*sql.Stmt
	marked bool // the arguments have to be bound
}

func newSession(d *dialect, on runner) *session {
	return &session{dialect: d, on: on, ctx: background, stmts: map[string]*prepared{}}
}

func (s *session) prepare(query string, args []any) (*prepared, []any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.stmts[query]
	if p == nil {
		b, _ := s.dialect.bind(query, args)
		stmt, err := s.on.PrepareContext(background, b.text)
		if err != nil {
			return nil, nil, err
		}
		p = &prepared{stmt, b.text != query}
		s.stmts[query] = p
	}
	if p.marked {
		var b bound
		b, args = s.dialect.bind(query, args)
		for _, i := range b.clock {
			args[i] = time.Now().UnixMicro()
		}
	}
	return p, args, nil
}

// within returns a session whose statements end with ctx. SQLite's are short.
func (s *session) within(ctx context.Context) *session {
	if s.dialect.prepares {
		return s
	}
	return &session{dialect: s.dialect, on: s.on, ctx: ctx, timeout: s.timeout}
}

func (s *session) limited() (context.Context, context.CancelFunc) {
	if s.timeout == 0 {
		return s.ctx, func() {}
	}
	return context.WithTimeout(s.ctx, s.timeout)
}

// exec runs query and returns the number of rows it changed.
func (s *session) exec(query string, args ...any) (int64, error) {
	ctx, cancel := s.limited()
	defer cancel()
	res, err := s.run(ctx, query, args)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (s *session) run(ctx context.Context, query string, args []any) (sql.Result, error) {
	if !s.dialect.prepares {
		b, args := s.dialect.bind(query, args)
		return s.on.ExecContext(ctx, b.text, args...)
	}
	stmt, args, err := s.prepare(query, args)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(ctx, args...)
}

func (s *session) query(ctx context.Context, query string, args []any) (*sql.Rows, error) {
	if !s.dialect.prepares {
		b, args := s.dialect.bind(query, args)
		return s.on.QueryContext(ctx, b.text, args...)
	}
	stmt, args, err := s.prepare(query, args)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

// each calls scan for each row until it returns false or an error.
func (s *session) each(query string, args []any, scan func(*sql.Rows) (bool, error)) error {
	ctx, cancel := s.limited()
	defer cancel()
	rows, err := s.query(ctx, query, args)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if more, err := scan(rows); err != nil || !more {
			return err
		}
	}
	return rows.Err()
}

// number returns the single number that query yields; ok is false for NULL and
// for no row.
func (s *session) number(query string, args ...any) (n int64, ok bool, err error) {
	var v sql.NullInt64
	err = s.each(query, args, func(rows *sql.Rows) (bool, error) { return false, rows.Scan(&v) })
	return v.Int64, v.Valid, err
}

func (s *session) close() {
	for _, stmt := range s.stmts {
		_ = stmt.Close() // nothing to lose: no statement is running
	}
}
