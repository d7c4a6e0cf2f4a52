package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/outbox"
)

const (
	written = 10_000 // rows that are written through the outbox; further ones are copies of them
	holes   = 10     // one position in so many is missing where there are gaps
)

// backlog is what a log holds before it is drained.
type backlog struct {
	rows int
	gaps bool // a tenth of the positions is missing, one by one
}

// load fills the log, unless it is as it should be, and sets its relay to the
// beginning.
func (b *bench) load(l backlog) error {
	if key := fmt.Sprint(l); b.loaded != key {
		if err := b.fill(l); err != nil {
			return err
		}
		b.loaded = key
	}
	return errors.Join(b.warm("millrace_outbox"), b.rewind("millrace_outbox", 0))
}

// warm reads a log, so that whoever drains it first has no disadvantage.
func (b *bench) warm(table string) error {
	var bytes int64
	return b.db.QueryRowContext(b.ctx, "SELECT sum(length(payload)) FROM "+table).Scan(&bytes)
}

// rewind makes a relay and the hand-written loop begin behind a position.
func (b *bench) rewind(table string, position int64) error {
	if err := b.exec("UPDATE hand_cursor SET position = ?, missing = NULL", position); err != nil {
		return err
	}
	return b.exec("UPDATE "+table+"_relay SET owner = '', lease_until = 0, published = ?, gaps = ?, swept = 0", position, []byte{})
}

func (b *bench) fill(l backlog) error {
	top := l.rows
	where := ""
	if l.gaps {
		top = l.rows*holes/(holes-1) + 1
		where = " AND position % " + strconv.Itoa(holes) + " <> 3"
	}
	if err := b.fillTemplate(top); err != nil {
		return err
	}
	if err := b.truncate("millrace_outbox"); err != nil {
		return err
	}
	insert := "INSERT INTO millrace_outbox (" + b.columns() + ") SELECT " + b.columns() + " FROM template WHERE position <= ?" + where + " ORDER BY position LIMIT ?"
	if err := b.exec(insert, top, l.rows); err != nil {
		return err
	}
	return b.settle("millrace_outbox")
}

// columns are those of a log, without the id of the transaction that PostgreSQL
// fills in.
func (b *bench) columns() string {
	key := "key"
	if b.dialect == outbox.MySQL {
		key = "`key`"
	}
	return "position, created_at, id, topic, " + key + ", metadata, payload"
}

// settle does what a database does by itself after a while.
func (b *bench) settle(table string) error {
	switch b.dialect {
	case outbox.Postgres:
		return b.execAll("VACUUM ANALYZE "+table, "CHECKPOINT")
	case outbox.MySQL:
		return b.execAll("ANALYZE TABLE " + table)
	}
	return b.execAll("PRAGMA wal_checkpoint(TRUNCATE)")
}

// fillTemplate makes sure that the template has n rows at least.
func (b *bench) fillTemplate(n int) error {
	var have int
	if err := b.db.QueryRowContext(b.ctx, "SELECT count(*) FROM template").Scan(&have); err != nil {
		return err
	}
	if have == 0 {
		if err := b.writeTemplate(); err != nil {
			return err
		}
		have = written
	}
	rest := b.columns()[len("position"):]
	for ; have < n; have *= 2 {
		insert := "INSERT INTO template (" + b.columns() + ") SELECT position + ?" + b.cast() + rest + " FROM template WHERE position <= ?"
		if err := b.exec(insert, have, min(have, n-have)); err != nil {
			return err
		}
		if have >= n/2 {
			break
		}
	}
	if b.dialect == outbox.SQLite {
		return b.exec("CREATE INDEX IF NOT EXISTS template_position ON template (position)")
	}
	if b.dialect == outbox.Postgres {
		return b.execAll("CREATE INDEX IF NOT EXISTS template_position ON template (position)", "ANALYZE template")
	}
	return nil
}

// cast is what a parameter needs for its type to be known.
func (b *bench) cast() string {
	if b.dialect == outbox.Postgres {
		return "::bigint"
	}
	return ""
}

// writeTemplate writes rows through the outbox, so that they are what it writes.
func (b *bench) writeTemplate() error {
	const batch = 500
	if err := b.reset(); err != nil {
		return err
	}
	for n := 0; n < written; n += batch {
		err := b.box.Transact(b.ctx, func(ctx context.Context, tx *sql.Tx) error {
			events := make([]*message.Message, batch)
			for i := range events {
				events[i] = event(ctx, "order-"+strconv.Itoa(n+i))
			}
			return b.box.In(tx).Publish(topic, events...)
		})
		if err != nil {
			return err
		}
	}
	copied := "SELECT row_number() OVER (ORDER BY position)" + b.columns()[len("position"):] + " FROM millrace_outbox"
	return b.exec("INSERT INTO template (" + b.columns() + ") " + copied)
}

// reset empties our outbox and sets its relay to the beginning.
func (b *bench) reset() error {
	b.loaded = ""
	if err := b.truncate("millrace_outbox"); err != nil {
		return err
	}
	return b.rewind("millrace_outbox", b.endOfLog())
}

// endOfLog is the last position that was given away: SQLite goes on from there
// although the rows are gone.
func (b *bench) endOfLog() (position int64) {
	if b.dialect == outbox.SQLite {
		_ = b.db.QueryRowContext(b.ctx, "SELECT seq FROM sqlite_sequence WHERE name = 'millrace_outbox'").Scan(&position)
	}
	return position
}
