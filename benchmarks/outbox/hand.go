package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"
)

// handLoop is what one would write by hand on pgx with the promises of a relay:
// a cursor in a table, positions that were missing looked for until their
// transactions have ended, progress recorded for every 1000 rows in the round
// trip that reads the next ones. One goroutine, one connection, no lease, no
// retries.
type handLoop struct {
	conn    *pgx.Conn
	table   string
	key     string // the name of the key's column
	delete  bool   // rows that are published
	publish func(id, payload []byte)

	cursor   int64
	recorded int64 // the cursor as the table has it
	missing  []hole
	passed   int64 // rows up to here are deleted
}

// hole is a missing position, and an id of a transaction that began after it was
// seen to be missing.
type hole struct{ position, bound int64 }

const (
	handBatch  = 1000
	handRecord = "UPDATE hand_cursor SET position = $1, missing = $2 RETURNING pg_current_xact_id()::text::bigint"
)

// handRow is what a row is decoded to, no further.
type handRow struct {
	position                          int64
	id, topic, key, metadata, payload []byte
}

// step records progress and reads once. It returns how many rows there were.
func (h *handLoop) step(ctx context.Context, record bool) (int, error) {
	b := &pgx.Batch{}
	if record {
		b.Queue(handRecord, h.cursor, h.encoded())
		h.recorded = h.cursor
		if h.delete {
			b.Queue("DELETE FROM "+h.table+" WHERE position > $1 AND position <= $2", h.passed, h.complete())
			h.passed = h.complete()
		}
	}
	query, args := h.query()
	b.Queue(query, args...)
	answer := h.conn.SendBatch(ctx, b)
	n, err := h.take(answer, record)
	return n, errors.Join(err, answer.Close())
}

// query reads what is new, and what was missing.
func (h *handLoop) query() (string, []any) {
	columns := "position, id, topic, " + h.key + ", metadata, payload"
	if len(h.missing) == 0 {
		return "SELECT " + columns + " FROM " + h.table + " WHERE position > $1 ORDER BY position LIMIT $2", []any{h.cursor, handBatch}
	}
	positions := make([]int64, len(h.missing))
	for i, m := range h.missing {
		positions[i] = m.position
	}
	return "SELECT -pg_snapshot_xmin(pg_current_snapshot())::text::bigint, NULL, NULL, NULL, NULL, NULL UNION ALL (SELECT " + columns + " FROM " + h.table +
		" WHERE position = ANY ($3)) UNION ALL (SELECT " + columns + " FROM " + h.table + " WHERE position > $1 ORDER BY position LIMIT $2)", []any{h.cursor, handBatch, positions}
}

func (h *handLoop) take(answer pgx.BatchResults, recorded bool) (int, error) {
	if recorded {
		var bound int64
		if err := answer.QueryRow().Scan(&bound); err != nil {
			return 0, err
		}
		h.bind(bound)
		if h.delete {
			if _, err := answer.Exec(); err != nil {
				return 0, err
			}
		}
	}
	rows, err := answer.Query()
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	return h.publishAll(rows)
}

// bind gives a bound to what has been found missing since the last one.
func (h *handLoop) bind(bound int64) {
	for i := range h.missing {
		if h.missing[i].bound == 0 {
			h.missing[i].bound = bound
		}
	}
}

// handRows are rows of pgx or of database/sql.
type handRows interface {
	Next() bool
	Scan(into ...any) error
	Err() error
}

func (h *handLoop) publishAll(rows handRows) (int, error) {
	batch := make([]handRow, 0, handBatch)
	horizon := int64(0)
	for rows.Next() {
		var r handRow
		if err := rows.Scan(&r.position, &r.id, &r.topic, &r.key, &r.metadata, &r.payload); err != nil {
			return 0, err
		}
		if r.position < 0 {
			horizon = -r.position
			continue
		}
		batch = append(batch, r)
	}
	h.advance(batch, horizon)
	for _, r := range batch {
		h.publish(r.id, r.payload)
	}
	return len(batch), rows.Err()
}

// advance moves the cursor over a batch, and forgets what can't appear any more.
func (h *handLoop) advance(batch []handRow, horizon int64) {
	found := map[int64]bool{}
	end := len(h.missing)
	for _, r := range batch {
		if r.position < h.cursor {
			found[r.position] = true
			continue
		}
		for p := h.cursor + 1; p < r.position; p++ {
			h.missing = append(h.missing, hole{position: p})
		}
		h.cursor = r.position
	}
	if len(found) == 0 && horizon == 0 {
		return
	}
	kept := slices.DeleteFunc(h.missing[:end:end], func(m hole) bool {
		return found[m.position] || m.bound != 0 && m.bound <= horizon
	})
	h.missing = append(kept, h.missing[end:]...)
}

// complete is the position up to which nothing is missing.
func (h *handLoop) complete() int64 {
	if len(h.missing) > 0 {
		return h.missing[0].position - 1
	}
	return h.cursor
}

func (h *handLoop) encoded() []byte {
	if len(h.missing) == 0 {
		return nil
	}
	b := make([]byte, 0, 3*len(h.missing))
	last := int64(0)
	for _, m := range h.missing {
		b = binary.AppendUvarint(b, uint64(m.position-last))
		last = m.position
	}
	return b
}

// drain publishes n rows, step by step.
func (h *handLoop) drain(ctx context.Context, n int, step func(ctx context.Context, record bool) (int, error)) error {
	for got := 0; got < n; {
		found, err := step(ctx, got > 0)
		if err != nil {
			return err
		}
		if found == 0 {
			return errors.New("the hand-written loop has come to the end of the log too early")
		}
		got += found
	}
	_, err := step(ctx, true)
	return err
}

// stepOn is step on database/sql, where each statement takes a round trip and each
// column is copied twice. Nothing is deleted.
func (h *handLoop) stepOn(db *sql.DB) func(ctx context.Context, record bool) (int, error) {
	return func(ctx context.Context, record bool) (int, error) {
		if record {
			var bound int64
			if err := db.QueryRowContext(ctx, handRecord, h.cursor, h.encoded()).Scan(&bound); err != nil {
				return 0, err
			}
			h.bind(bound)
		}
		query, args := h.query()
		rows, err := db.QueryContext(ctx, query, args...)
		if err != nil {
			return 0, err
		}
		defer rows.Close()
		n, err := h.publishAll(rows)
		return n, errors.Join(err, rows.Err())
	}
}
