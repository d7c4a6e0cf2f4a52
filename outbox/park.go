package outbox

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// heldKeys are the keys that must not go on because one of their events is
// parked. The set may name a key that has been unparked since, never less.
type heldKeys struct {
	mu   sync.Mutex
	keys map[string]struct{}
}

func (h *heldKeys) has(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.keys[key]
	return ok
}

func (h *heldKeys) set(key string, held bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys == nil {
		h.keys = map[string]struct{}{}
	}
	if held {
		h.keys[key] = struct{}{}
	} else {
		delete(h.keys, key)
	}
}

// loadHeld reads which keys are held; only the active relay adds to them.
func (t *term) loadHeld() error {
	if !t.cfg.parkKey {
		return nil
	}
	rows, err := t.box.db.QueryContext(t.work, t.box.sql.heldKeys)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var topic, key []byte
		if err := rows.Scan(&topic, &key); err != nil {
			return err
		}
		t.held.set(string(topic)+"\x00"+string(key), true)
	}
	return rows.Err()
}

// park moves a row from the log to the parked ones, with the reason. If that
// fails the row is tried again.
func (t *term) park(it *item, why error) {
	r := it.Record
	held := t.cfg.parkKey && r.key != ""
	if held {
		t.held.set(r.order, true) // before the row is there: too much is harmless, see parkBehind
	}
	if _, err := t.moveToParked(t.box.sql.park, r, why, held); err != nil {
		t.parkingFailed(it, err)
		return
	}
	t.detour.settled(it)
	t.counters.parked.Add(1)
	t.log.Error("outbox: an event is parked; see Outbox.Parked and Unpark",
		"topic", r.topic, "event", r.id, "attempts", r.tries.attempts, "error", why)
}

// parkBehind parks a row whose key is held, and reports whether the row is dealt
// with.
func (t *term) parkBehind(it *item) bool {
	r := it.Record
	if !t.cfg.parkKey || r.key == "" || !t.held.has(r.order) {
		return false
	}
	moved, err := t.moveToParked(t.box.sql.parkBehind, r, errors.New("an earlier event of its key is parked"), true)
	switch {
	case err != nil:
		t.parkingFailed(it, err)
		return true
	case moved:
		t.detour.settled(it)
		t.counters.parked.Add(1)
		return true
	}
	t.held.set(r.order, false)
	return false
}

// moveToParked reports false when the statement found nothing to move. A row
// that has left the log was moved behind others of its key by Unpark and is
// read again from there, which counts as moved.
func (t *term) moveToParked(insert string, r *row, why error, held bool) (moved bool, err error) {
	ctx, cancel := t.bounded()
	defer cancel()
	q, moved := &t.box.sql, false
	err = t.box.fenced(ctx, t.lease.token, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, insert, legible(why), r.tries.attempts, number(held), time.Now().UnixMilli(), r.position)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n > 0 {
			moved = true
			_, err = tx.ExecContext(ctx, q.unlog, r.position)
			return err
		}
		var there int64
		err = tx.QueryRowContext(ctx, q.inLog, r.position).Scan(&there)
		if errors.Is(err, sql.ErrNoRows) {
			moved = true
			return nil
		}
		return err
	})
	return moved && err == nil, err
}

func (t *term) parkingFailed(it *item, err error) {
	it.Retry(databasePause)
	if errors.Is(err, errFenced) {
		t.lost(errFenced)
		return
	}
	t.log.Error("outbox: an event could not be parked, trying again",
		"topic", it.Record.topic, "event", it.Record.id, "error", fmt.Errorf("park: %w", err))
}

// legible returns the text of an error as every database takes it.
func legible(err error) string {
	return strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\x00", "\uFFFD"), "\uFFFD")
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
