package main

import (
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/outbox"
)

// sqlLoop is the hand-written loop on database/sql: on MySQL with positions that
// were missing looked for as long as a transaction may take, on SQLite without.
type sqlLoop struct {
	*bench
	table, key string
	delete     bool
	publish    func(id string, payload []byte)

	cursor  int64
	missing []int64
	passed  int64
	read    *sql.Stmt
}

// step reads once, publishes and records that. It returns how many rows there
// were.
func (h *sqlLoop) step() (int, error) {
	batch, err := h.next()
	if err != nil {
		return 0, err
	}
	for _, r := range batch {
		if r.position < h.cursor {
			h.missing = slices.DeleteFunc(h.missing, func(p int64) bool { return p == r.position })
			continue
		}
		for p := h.cursor + 1; p < r.position && h.dialect == outbox.MySQL; p++ {
			h.missing = append(h.missing, p)
		}
		h.cursor = r.position
	}
	for _, r := range batch {
		h.publish(string(r.id), r.payload)
	}
	if len(batch) == 0 {
		return 0, nil
	}
	return len(batch), h.record()
}

func (h *sqlLoop) record() error {
	list := make([]string, len(h.missing))
	for i, p := range h.missing {
		list[i] = strconv.FormatInt(p, 10)
	}
	if !h.delete {
		return h.exec("UPDATE hand_cursor SET position = ?, missing = ?", h.cursor, []byte(strings.Join(list, ",")))
	}
	tx, err := h.db.BeginTx(h.ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(h.ctx, "UPDATE hand_cursor SET position = ?, missing = ?", h.cursor, []byte(strings.Join(list, ","))); err != nil {
		return err
	}
	complete := h.cursor
	if len(h.missing) > 0 {
		complete = h.missing[0] - 1
	}
	if _, err := tx.ExecContext(h.ctx, "DELETE FROM "+h.table+" WHERE position > ? AND position <= ?", h.passed, complete); err != nil {
		return err
	}
	h.passed = complete
	return tx.Commit()
}

func (h *sqlLoop) next() ([]handRow, error) {
	read := "(SELECT position, id, topic, " + h.key + ", metadata, payload FROM " + h.table + " WHERE position > ? ORDER BY position LIMIT ?)"
	var rows *sql.Rows
	var err error
	if len(h.missing) == 0 {
		if h.read == nil {
			if h.read, err = h.db.PrepareContext(h.ctx, strings.Trim(read, "()")); err != nil {
				return nil, err
			}
		}
		rows, err = h.read.QueryContext(h.ctx, h.cursor, handBatch)
	} else {
		list := make([]string, len(h.missing))
		for i, p := range h.missing {
			list[i] = strconv.FormatInt(p, 10)
		}
		rows, err = h.db.QueryContext(h.ctx, "(SELECT position, id, topic, "+h.key+", metadata, payload FROM "+h.table+" WHERE position IN ("+strings.Join(list, ",")+")) UNION ALL "+read, h.cursor, handBatch)
	}
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	batch := make([]handRow, 0, handBatch)
	for rows.Next() {
		var r handRow
		if err := rows.Scan(&r.position, &r.id, &r.topic, &r.key, &r.metadata, &r.payload); err != nil {
			return nil, err
		}
		batch = append(batch, r)
	}
	return batch, rows.Err()
}

func (h *sqlLoop) close() {
	if h.read != nil {
		_ = h.read.Close()
	}
}

func (b *bench) handSQLDrains(l backlog) []rounds.Variant {
	key := "key"
	if b.dialect == outbox.MySQL {
		key = "`key`"
	}
	drain := func(name string, del bool) rounds.Variant {
		return rounds.Variant{Name: name, Prepare: func() error { return b.load(l) }, Run: func() (rounds.Sample, error) {
			if del {
				b.loaded = ""
			}
			c := newCounter(l.rows)
			h := &sqlLoop{bench: b, table: "millrace_outbox", key: key, delete: del, publish: func(_ string, payload []byte) { c.hit(payload) }}
			defer h.close()
			start := time.Now()
			for n := 1; n > 0; {
				var err error
				if n, err = h.step(); err != nil {
					return rounds.Sample{}, err
				}
			}
			return b.until(c, start), nil
		}}
	}
	return []rounds.Variant{
		drain("by hand: cursor", false),
		drain(handDeletes, true),
		{Name: "one SELECT of all, the limit of reading", Prepare: func() error { return b.load(l) }, Run: func() (rounds.Sample, error) {
			rows, err := b.db.QueryContext(b.ctx, "SELECT "+b.columns()+" FROM millrace_outbox ORDER BY position")
			if err != nil {
				return rounds.Sample{}, err
			}
			defer rows.Close()
			var raw [7]sql.RawBytes
			for rows.Next() {
				if err := rows.Scan(&raw[0], &raw[1], &raw[2], &raw[3], &raw[4], &raw[5], &raw[6]); err != nil {
					return rounds.Sample{}, err
				}
			}
			return rounds.Sample{N: l.rows}, rows.Err()
		}},
	}
}
