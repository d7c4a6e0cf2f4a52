package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/aftercommit"
	"github.com/millrace-go/millrace/internal/held"
)

// In returns a publisher that writes events as part of tx: they are published
// if and only if tx commits. Publish is one INSERT (one more if some messages are
// due later; several beyond 200 messages on SQLite, elsewhere beyond 1000 or 4 MiB), and honours the context of the first message.
// Errors about the messages are permanent. The publisher ends with tx; its Close
// does nothing. Like tx it is for one goroutine at a time.
//
// On PostgreSQL the INSERT takes no round trip if db was opened with
// pgxoutbox.Connector: it is sent with the COMMIT, or before the next statement,
// which then fails if it does.
//
// A message with a due time in the future (eventbus.WithDelay) is set aside and
// enters the log when it is due; a due time in the past means now.
//
// The relay in this process is woken after the commit when the transaction was
// begun by [Outbox.Transact] or idempotency.Once and the event was published
// with the ctx they hand out. Otherwise the relay finds the event at its next
// poll, unless Poke is called.
func (o *Outbox) In(tx *sql.Tx) message.Publisher {
	return &publisher{box: o, exec: func(ctx context.Context, statement string, args ...any) error {
		if tx == nil {
			return driver.Permanent(errors.New("In was given a nil transaction"))
		}
		return o.execute(ctx, tx, statement, args)
	}}
}

// Exec executes one statement within a transaction. It is for one goroutine at
// a time, like the transaction.
type Exec func(ctx context.Context, statement string, args ...any) error

// Via is In for transactions of other packages than database/sql, such as those
// of ent or bun: exec is how a statement is executed in one. If the outbox's
// own database is used through pgx, arguments may be slices, which pgx passes as
// arrays. For pgx itself there is package pgxoutbox.
func (o *Outbox) Via(exec Exec) message.Publisher { return &publisher{box: o, exec: exec} }

type publisher struct {
	box  *Outbox
	exec Exec
}

// Source names the publisher of events published outside of handlers.
func (p *publisher) Source() string { return p.box.source }

// Close does nothing: the transaction belongs to the caller.
func (p *publisher) Close() error { return nil }

// Publish writes messages into the log within the transaction.
func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	if err := p.usable(topic); err != nil {
		return err
	}
	now := time.Now()
	var space [1]pending // most calls have one message
	due, later := space[:0], []pending(nil)
	for _, m := range messages {
		row, err := prepare(m)
		if err != nil {
			return driver.Permanent(enqueueError(topic, m, err))
		}
		if row.due > now.UnixMilli() {
			later = append(later, row)
		} else {
			due = append(due, row)
		}
	}
	ctx := messages[0].Context()
	if err := p.box.checkBacklog(ctx); err != nil {
		return enqueueError(topic, messages[0], err)
	}
	if err := p.insert(ctx, topic, now, due, later); err != nil {
		return enqueueError(topic, messages[0], p.box.explain(err))
	}
	aftercommit.Do(ctx, p.box, p.box.poke)
	return nil
}

func (p *publisher) usable(topic string) error {
	if p.box.err != nil {
		return p.box.err
	}
	if p.exec == nil {
		return driver.Permanent(fmt.Errorf("outbox: enqueue topic %q: Via was given no function", topic))
	}
	if err := driver.CheckTopic(topic); err != nil {
		return fmt.Errorf("outbox: enqueue topic %q: %w", topic, err)
	}
	return nil
}

func enqueueError(topic string, m *message.Message, err error) error {
	id := ""
	if m != nil {
		id = m.UUID
	}
	return fmt.Errorf("outbox: enqueue topic %q event %s: %w", topic, id, err)
}

// pending is a message on its way into a table.
type pending struct {
	id, key  string
	metadata []byte
	payload  []byte
	due      int64 // Unix milliseconds, 0: now
}

func prepare(m *message.Message) (pending, error) {
	if m == nil {
		return pending{}, errors.New("the message is nil")
	}
	if m.UUID == "" {
		return pending{}, errors.New("the message has no UUID, which is the event's id")
	}
	if strings.ContainsRune(m.UUID, 0) {
		return pending{}, fmt.Errorf("the message's UUID %q holds a zero byte", m.UUID)
	}
	due, err := driver.Due(m)
	if err != nil {
		return pending{}, err
	}
	row := pending{
		id:       m.UUID,
		key:      driver.Key(m),
		metadata: driver.EncodeMetadata(m.Metadata, driver.MetadataDue),
		payload:  m.Payload,
	}
	if row.payload == nil {
		row.payload = []byte{} // nil would be NULL
	}
	if !due.IsZero() {
		row.due = due.Add(time.Millisecond - 1).UnixMilli() // never early
	}
	return row, nil
}

func (p *publisher) insert(ctx context.Context, topic string, now time.Time, due, later []pending) error {
	at := now.UnixMilli()
	if err := p.insertChunks(ctx, &p.box.sql.insert, topic, at, due); err != nil {
		return err
	}
	if len(later) > 0 {
		p.box.later.Store(true)
	}
	return p.insertChunks(ctx, &p.box.sql.schedule, topic, at, later)
}

func (p *publisher) insertChunks(ctx context.Context, s *insertion, topic string, at int64, rows []pending) error {
	for len(rows) > 0 {
		n := s.fit(rows)
		if err := p.insertChunk(ctx, s, topic, at, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

func (p *publisher) insertChunk(ctx context.Context, s *insertion, topic string, at int64, rows []pending) error {
	switch {
	case len(rows) == 1:
		return p.execHeld(ctx, s.one, s.args(topic, at, rows))
	case s.arrays != "" && p.box.pgx:
		return p.execHeld(ctx, s.arrays, s.arrayArgs(topic, at, rows))
	}
	return p.exec(ctx, s.text(p.box.sql.dialect, len(rows)), s.args(topic, at, rows)...)
}

// execHeld executes a statement which a connection of pgxoutbox.Connector may send
// with what comes next.
func (p *publisher) execHeld(ctx context.Context, statement string, args []any) error {
	if p.box.sql.dialect == Postgres {
		ctx = held.May(ctx, statement)
	}
	return p.exec(ctx, statement, args...)
}

// explain adds what to do to errors that have a remedy.
func (o *Outbox) explain(err error) error {
	if o.sql.dialect.IsMissingTable(err) {
		return fmt.Errorf("%w: call Migrate, or apply Schema, before the outbox is used", err)
	}
	return err
}
