package main

import (
	"fmt"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
)

// full compares tables that are empty with tables that are full of instances that
// wait, each with a timer that is due in a year, and of some that have ended, with
// one row of history each.
func (b *bench) full() error {
	s, err := onPgx(b.ctx, b.pool, "full")
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }()
	for _, load := range []struct {
		n                int
		status, progress string
	}{{b.finished, "completed", `{"steps":{"reserve":{"status":"done","attempt":1},"charge":{"status":"done","attempt":1},"ship":{"status":"done","attempt":1}},"order":["reserve","charge","ship"]}`},
		{b.waiting, "running", `{"steps":{"reserve":{"status":"waiting","attempt":1,"due":"2099-01-01T00:00:00Z"}},"order":["reserve"]}`}} {
		if _, err := b.pool.Exec(b.ctx, fmt.Sprintf(loadInstances, load.n), load.status, load.progress, document); err != nil {
			return err
		}
	}
	for _, statement := range []string{loadHistory, loadTimers, "VACUUM ANALYZE full_saga", "VACUUM ANALYZE full_saga_history", "VACUUM ANALYZE full_outbox_scheduled"} {
		if _, err := b.pool.Exec(b.ctx, statement); err != nil {
			return err
		}
	}
	for _, workers := range []int{1, 16} {
		t := b.table(fmt.Sprintf("Full table, %d concurrent", workers), workers, []variant{
			{pgxName + ", empty tables", func(int) error { return b.pgx.execute(b.ctx) }},
			{fmt.Sprintf("beside %s waiting and %s finished instances", rounds.Thousands(b.waiting), rounds.Thousands(b.finished)),
				func(int) error { return s.execute(b.ctx) }},
		})
		if err := t.Run(b.rounds); err != nil {
			return err
		}
	}
	_, err = b.pool.Exec(b.ctx, "DROP TABLE full_saga, full_saga_history, full_outbox_scheduled")
	return err
}

const (
	loadInstances = `INSERT INTO full_saga (saga, id, version, revision, status, state_version, wake_at, created_at, updated_at, rested_at, error, progress, state)
		SELECT 'fulfilment', gen_random_uuid()::text::bytea, 1, 3, $1::text, 1, CASE $1::text WHEN 'running' THEN 4070908800000 ELSE 0 END, 1600000000000 + g, 1600000000000 + g,
		CASE $1::text WHEN 'running' THEN 0 ELSE 1600000000000 + g END,
		'', $2::text::bytea, $3::text::bytea FROM generate_series(1, %d) g`
	loadHistory = `INSERT INTO full_saga_history (saga, id, revision, at, event, event_id, from_position, to_position, emitted, note, state)
		SELECT saga, id, revision, updated_at, 'call:ship', '', 'running: ship: calling', status, '[]', '', state FROM full_saga`
	loadTimers = `INSERT INTO full_outbox_scheduled (due_at, created_at, id, topic, key, metadata, payload)
		SELECT wake_at, created_at, id, 'saga.fulfilment.control', id, '', convert_to('{"id":"' || convert_from(id, 'UTF8') || '","kind":"wake"}', 'UTF8') FROM full_saga WHERE status = 'running'`
)
