package saga

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/millrace-go/millrace/saga/internal/tables"
)

// Load is Store.Load.
func (s *SQLStore) Load(ctx context.Context, saga, id string) (Instance, error) {
	if s.err != nil {
		return Instance{}, s.err
	}
	r := &tables.Row{}
	found, err := s.load(ctx, tables.Lookup{Saga: saga, ID: stored(id), Statement: s.sql.load, Together: s.sql.loadTogether, Row: r})
	switch {
	case err != nil:
		return Instance{}, s.failed("load", err)
	case !found:
		return Instance{}, ErrNoInstance
	}
	return instanceOf(r), nil
}

func (s *SQLStore) loadByDB(ctx context.Context, l tables.Lookup) (found bool, err error) {
	err = s.db.QueryRowContext(ctx, l.Statement, l.Saga, l.ID).Scan(l.Row.Columns()...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return true, err
}

// row is a *sql.Row or *sql.Rows.
type row interface{ Scan(dest ...any) error }

func readInstance(from row) (Instance, error) {
	var r tables.Row
	err := from.Scan(r.Columns()...)
	return instanceOf(&r), err
}

func instanceOf(r *tables.Row) Instance {
	return Instance{
		Saga: r.Saga, ID: string(r.ID), Version: r.Version, Revision: r.Revision, Status: Status(r.Status), StateVersion: r.StateVersion,
		Wake: fromMillis(r.Wake), Created: fromMillis(r.Created), Updated: fromMillis(r.Updated),
		Error: string(r.Error), Progress: read(r.Progress), State: read(r.State), RecoverAt: fromMillis(max(0, -r.Rested)),
	}
}

// read is the other way of stored: what is empty may have been nil.
func read(b []byte) json.RawMessage {
	if len(b) == 0 {
		return nil
	}
	return b
}

// History is Store.History.
func (s *SQLStore) History(ctx context.Context, saga, id string) ([]Entry, error) {
	if s.err != nil {
		return nil, s.err
	}
	entries, err := query(ctx, s.db, s.sql.history, []any{saga, stored(id)}, readEntry)
	if err != nil {
		return nil, s.failed("read the history", err)
	}
	return entries, nil
}

func readEntry(r row) (e Entry, err error) {
	var at int64
	var id, event, eventID, from, to, emitted, note, state []byte
	if err := r.Scan(&e.Saga, &id, &e.Revision, &at, &event, &eventID, &from, &to, &emitted, &note, &state); err != nil {
		return e, err
	}
	e.ID, e.Event, e.EventID, e.From, e.To, e.Note = string(id), string(event), string(eventID), string(from), string(to), string(note)
	e.At, e.State = fromMillis(at), read(state)
	if err := json.Unmarshal(emitted, &e.Emitted); err != nil {
		return e, fmt.Errorf("revision %d: the topics of its messages: %w", e.Revision, err)
	}
	return e, nil
}

// Count is Store.Count. It reads an index entry of every instance of the saga.
func (s *SQLStore) Count(ctx context.Context, saga string) (map[Status]int64, error) {
	if s.err != nil {
		return nil, s.err
	}
	type count struct {
		status Status
		n      int64
	}
	counts, err := query(ctx, s.db, s.sql.count, []any{saga}, func(r row) (c count, err error) { return c, r.Scan(&c.status, &c.n) })
	if err != nil {
		return nil, s.failed("count", err)
	}
	all := map[Status]int64{}
	for _, c := range counts {
		all[c.status] = c.n
	}
	return all, nil
}

// query returns all rows of a query.
func query[T any](ctx context.Context, db *sql.DB, statement string, args []any, read func(row) (T, error)) (all []T, err error) {
	rows, err := db.QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		v, err := read(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// Pin is Store.Pin.
func (s *SQLStore) Pin(ctx context.Context, saga string, version int, fingerprint string) (string, error) {
	if s.err != nil {
		return "", s.err
	}
	pinned, err := s.pinned(ctx, saga, version)
	if errors.Is(err, sql.ErrNoRows) {
		if err := s.pin(ctx, saga, version, fingerprint); err != nil {
			return "", s.failed("pin", err)
		}
		pinned, err = s.pinned(ctx, saga, version)
	}
	if err != nil {
		return "", s.failed("pin", err)
	}
	return pinned, nil
}

func (s *SQLStore) pinned(ctx context.Context, saga string, version int) (fingerprint string, err error) {
	err = s.db.QueryRowContext(ctx, s.sql.pinned, saga, version).Scan(&fingerprint)
	return fingerprint, err
}

// pin records a fingerprint unless there is one.
func (s *SQLStore) pin(ctx context.Context, saga string, version int, fingerprint string) error {
	return s.sql.dialect.Retry(ctx, func() error {
		done, err := s.sql.dialect.Turn(ctx, s.db)
		if err != nil {
			return err
		}
		defer done()
		_, err = s.db.ExecContext(ctx, s.sql.pin, saga, version, fingerprint)
		if s.sql.dialect.IsDuplicateKey(err) {
			return nil
		}
		return err
	})
}
