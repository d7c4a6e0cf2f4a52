package faultdb

import (
	"context"
	"database/sql/driver"
	"reflect"
)

// stmt is a prepared statement.
type stmt struct {
	c     *conn
	base  driver.Stmt
	query string
}

var (
	_ driver.StmtExecContext   = (*stmt)(nil)
	_ driver.StmtQueryContext  = (*stmt)(nil)
	_ driver.NamedValueChecker = (*stmt)(nil)
)

// Close is part of driver.Stmt.
func (s *stmt) Close() error { return s.c.closed(s.base) }

// NumInput is part of driver.Stmt.
func (s *stmt) NumInput() int { return s.base.NumInput() }

// CheckNamedValue is part of driver.NamedValueChecker.
func (s *stmt) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := s.base.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return s.c.CheckNamedValue(v)
}

// Exec is part of driver.Stmt.
func (s *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return s.ExecContext(context.Background(), named(args))
}

// ExecContext is part of driver.StmtExecContext.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (res driver.Result, err error) {
	err = s.c.do("exec "+s.query, func() error {
		if e, ok := s.base.(driver.StmtExecContext); ok {
			res, err = e.ExecContext(ctx, args)
		} else {
			res, err = s.base.Exec(values(args)) //nolint:staticcheck // there is nothing else
		}
		return err
	})
	return res, err
}

// Query is part of driver.Stmt.
func (s *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return s.QueryContext(context.Background(), named(args))
}

// QueryContext is part of driver.StmtQueryContext.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.c.query("query "+s.query, func() (driver.Rows, error) {
		if q, ok := s.base.(driver.StmtQueryContext); ok {
			return q.QueryContext(ctx, args)
		}
		return s.base.Query(values(args)) //nolint:staticcheck // there is nothing else
	})
}

func named(args []driver.Value) []driver.NamedValue {
	all := make([]driver.NamedValue, len(args))
	for i, v := range args {
		all[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return all
}

func values(args []driver.NamedValue) []driver.Value {
	all := make([]driver.Value, len(args))
	for i, v := range args {
		all[i] = v.Value
	}
	return all
}

// rows is the answer to a query.
type rows struct {
	c    *conn
	base driver.Rows
}

var (
	_ driver.RowsNextResultSet              = (*rows)(nil)
	_ driver.RowsColumnTypeDatabaseTypeName = (*rows)(nil)
	_ driver.RowsColumnTypeScanType         = (*rows)(nil)
)

// Columns is part of driver.Rows.
func (r *rows) Columns() []string {
	r.c.mu.Lock() // a connection may be cut at any time
	defer r.c.mu.Unlock()
	return r.base.Columns()
}

// Close is part of driver.Rows.
func (r *rows) Close() error { return r.c.closed(r.base) }

// Next is part of driver.Rows.
func (r *rows) Next(dest []driver.Value) error {
	return r.c.quietly(func() error { return r.base.Next(dest) })
}

// HasNextResultSet is part of driver.RowsNextResultSet.
func (r *rows) HasNextResultSet() bool {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	n, ok := r.base.(driver.RowsNextResultSet)
	return ok && n.HasNextResultSet()
}

// NextResultSet is part of driver.RowsNextResultSet.
func (r *rows) NextResultSet() error {
	return r.c.quietly(r.base.(driver.RowsNextResultSet).NextResultSet)
}

// ColumnTypeDatabaseTypeName is part of driver.RowsColumnTypeDatabaseTypeName.
func (r *rows) ColumnTypeDatabaseTypeName(i int) string {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if n, ok := r.base.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return n.ColumnTypeDatabaseTypeName(i)
	}
	return ""
}

// ColumnTypeScanType is part of driver.RowsColumnTypeScanType.
func (r *rows) ColumnTypeScanType(i int) reflect.Type {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if s, ok := r.base.(driver.RowsColumnTypeScanType); ok {
		return s.ColumnTypeScanType(i)
	}
	return reflect.TypeFor[any]()
}
