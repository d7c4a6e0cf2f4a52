package sqlbus

import (
	"context"
	"database/sql"
	"sync"
)

// background is for statements: each is short, and a context that can end would
// cost a goroutine per statement.
var background = context.Background()

type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// session runs statements, each prepared once.
type session struct {
	on preparer

	mu    sync.Mutex
	stmts map[string]*sql.Stmt
}

func newSession(on preparer) *session {
	return &session{on: on, stmts: map[string]*sql.Stmt{}}
}

func (s *session) prepare(query string) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stmt := s.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := s.on.PrepareContext(background, query)
	if err == nil {
		s.stmts[query] = stmt
	}
	return stmt, err
}

// exec runs query and returns the number of rows it changed.
func (s *session) exec(query string, args ...any) (int64, error) {
	stmt, err := s.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := stmt.ExecContext(background, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// each calls scan for each row until it returns false or an error.
func (s *session) each(query string, args []any, scan func(*sql.Rows) (bool, error)) error {
	stmt, err := s.prepare(query)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(background, args...)
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
