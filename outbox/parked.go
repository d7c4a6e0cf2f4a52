package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// ParkedEvent is an event that could not be published and was set aside.
type ParkedEvent struct {
	ID    string
	Topic string
	Key   string
	// Metadata is nil when it can't be decoded.
	Metadata map[string]string
	Payload  []byte
	// Error is why the event was parked: what the publisher said, or that an
	// earlier event of its key is parked.
	Error string
	// Attempts is how many failures counted; 0 if the event itself was not tried.
	Attempts int
	// Written is when the event entered the log.
	Written time.Time
	// Parked is when it was set aside.
	Parked time.Time
}

// Parked returns the parked events, oldest first, at most limit. A limit below 1
// means 100.
func (o *Outbox) Parked(ctx context.Context, limit int) ([]ParkedEvent, error) {
	if o.err != nil {
		return nil, o.err
	}
	if limit < 1 {
		limit = 100
	}
	events, err := o.readParked(ctx, limit)
	if err != nil {
		return nil, fmt.Errorf("outbox: list the parked events of %s: %w", o.sql.prefix, o.explain(err))
	}
	return events, nil
}

func (o *Outbox) readParked(ctx context.Context, limit int) ([]ParkedEvent, error) {
	rows, err := o.db.QueryContext(ctx, o.sql.parked, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var events []ParkedEvent
	for rows.Next() {
		var e ParkedEvent
		var id, topic, key, metadata []byte
		var written, parked int64
		if err := rows.Scan(&id, &topic, &key, &metadata, &e.Payload, &written, &e.Error, &e.Attempts, &parked); err != nil {
			return nil, err
		}
		e.ID, e.Topic, e.Key = string(id), string(topic), string(key)
		e.Metadata, _ = driver.DecodeMetadata(metadata) // such an event is parked for just that
		e.Written, e.Parked = time.UnixMilli(written), time.UnixMilli(parked)
		events = append(events, e)
	}
	return events, rows.Err()
}

// Unpark puts parked events back into the log, behind what is there, and wakes
// the relay. It returns how many went back; ids that are not parked are
// ignored.
//
// With [ParkKey] the key of an event is put back as a whole, in its order: the
// event, whatever parked with it, and what is waiting in the log behind them.
func (o *Outbox) Unpark(ctx context.Context, ids ...string) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	total := 0
	err := o.sql.dialect.ReadCommitted(ctx, o.db, func(tx *sql.Tx) error {
		total = 0
		for _, id := range ids {
			n, err := o.unparkID(ctx, tx, id)
			if err != nil {
				return fmt.Errorf("event %s: %w", id, err)
			}
			total += n
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("outbox: unpark %s: %w", o.sql.prefix, o.explain(err))
	}
	if total > 0 {
		o.Poke()
	}
	return total, nil
}

// parkedRow is what deciding about a parked row takes.
type parkedRow struct {
	position int64
	topic    string
	key      []byte
	holdsKey bool
}

func (o *Outbox) unparkID(ctx context.Context, tx *sql.Tx, id string) (int, error) {
	parked, err := o.parkedOf(ctx, tx, id)
	if err != nil {
		return 0, err
	}
	total := 0
	for _, r := range parked {
		n := 0
		if r.holdsKey {
			n, err = o.unparkKey(ctx, tx, r)
		} else {
			n, err = exec(ctx, tx, o.sql.unpark, r.position)
			if err == nil {
				_, err = exec(ctx, tx, o.sql.dropParked, r.position)
			}
		}
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// parkedOf returns the parked rows of an event: usually one, more if a handler
// without an inbox has published it again.
func (o *Outbox) parkedOf(ctx context.Context, tx *sql.Tx, id string) ([]parkedRow, error) {
	rows, err := tx.QueryContext(ctx, o.sql.parkedOf, []byte(id))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []parkedRow
	for rows.Next() {
		var r parkedRow
		var topic []byte
		if err := rows.Scan(&r.position, &topic, &r.key, &r.holdsKey); err != nil {
			return nil, err
		}
		r.topic = string(topic)
		found = append(found, r)
	}
	return found, rows.Err()
}

// unparkKey moves the parked rows of a key to the end of the log, and behind
// them those that are in the log and not published: a relay that has them in its
// hands finds them gone and reads them again from there.
func (o *Outbox) unparkKey(ctx context.Context, tx *sql.Tx, r parkedRow) (int, error) {
	var first int64
	if err := tx.QueryRowContext(ctx, o.sql.firstOfKey, r.topic, r.key).Scan(&first); err != nil {
		return 0, err
	}
	if first == 0 { // an earlier id of the call has taken the key along
		return 0, nil
	}
	waiting, err := o.unpublished(ctx, tx, r.topic, r.key, first)
	if err != nil {
		return 0, err
	}
	n, err := exec(ctx, tx, o.sql.unparkKey, r.topic, r.key)
	if err != nil {
		return 0, err
	}
	if _, err := exec(ctx, tx, o.sql.dropKey, r.topic, r.key); err != nil || len(waiting) == 0 {
		return n, err
	}
	for _, statement := range []string{o.sql.moveLogRows, o.sql.dropLogRows} {
		text, args := o.sql.list(statement, waiting)
		if _, err := exec(ctx, tx, text, args...); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// unpublished returns the positions of the rows of a key behind first that are
// not recorded as published. The relay's row is locked, so that this stays so.
func (o *Outbox) unpublished(ctx context.Context, tx *sql.Tx, topic string, key []byte, first int64) ([]int64, error) {
	var published, swept, token int64
	var encoded []byte
	if err := tx.QueryRowContext(ctx, o.sql.taken).Scan(&token, &published, &encoded, &swept); err != nil {
		return nil, err
	}
	if err := o.hold(ctx, tx, token); err != nil {
		return nil, err
	}
	if err := tx.QueryRowContext(ctx, o.sql.taken).Scan(&token, &published, &encoded, &swept); err != nil {
		return nil, err
	}
	missing, err := decodeGaps(encoded)
	if err != nil {
		return nil, err
	}
	waiting, err := positions(ctx, tx, o.sql.logKey, topic, key, first)
	return slices.DeleteFunc(waiting, func(p int64) bool {
		_, late := missing.find(p)
		return p <= published && !late
	}), err
}

func exec(ctx context.Context, tx *sql.Tx, statement string, args ...any) (int, error) {
	res, err := tx.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return int(n), err
}
