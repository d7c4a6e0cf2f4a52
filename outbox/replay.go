package outbox

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
)

// ReplayQuery selects published events that a relay with a [Retention] has kept.
// The zero value selects all of them.
type ReplayQuery struct {
	// Topic and Key select by equality; empty: any.
	Topic, Key string
	// Type selects by the CloudEvents type; empty: any.
	Type string
	// From and To select by when the event entered the log, From included, To not;
	// zero: no limit. It is the clock of the process that wrote it.
	From, To time.Time
	// After selects events behind a position, to go on where a replay has stopped.
	After int64
	// DryRun counts and publishes nothing.
	DryRun bool
	// Progress, if set, is called after each step of at most a thousand events.
	Progress func(ReplayResult)
}

// ReplayResult says how far a replay has come.
type ReplayResult struct {
	// Matched is how many events were selected; all of them were published, unless
	// it is a dry run or Replay has returned an error.
	Matched int64
	// Position is the last that was looked at: what ReplayQuery.After takes.
	Position int64
	// End is the last that will be looked at.
	End int64
}

// replayStep is how many events are read at a time, from among replayRange
// positions.
const (
	replayStep  = 1000
	replayRange = 20_000
)

// Replay publishes kept events once more, in the order of the log and with their
// original ids, metadata and payloads. So a consumer with an inbox drops what it
// has handled: replay to a new consumer group, or to another bus. What is not
// published yet, or parked, is left to the relay, which may go on meanwhile; the
// replay ends with what was published when it began.
//
// It stops at the first error of the publisher or the database and says how far
// it has come; up to a thousand events behind that may have been published.
func (o *Outbox) Replay(ctx context.Context, to message.Publisher, q ReplayQuery) (ReplayResult, error) {
	if o.err != nil {
		return ReplayResult{}, o.err
	}
	if to == nil && !q.DryRun {
		return ReplayResult{}, fmt.Errorf("outbox: replay %s: the publisher is nil", o.sql.prefix)
	}
	r := ReplayResult{Position: q.After}
	missing, err := o.replayEnd(ctx, &r)
	for err == nil && r.Position < r.End {
		err = o.replayStep(ctx, to, q, missing, &r)
		if err == nil && q.Progress != nil {
			q.Progress(r)
		}
	}
	if err != nil {
		return r, fmt.Errorf("outbox: replay %s: after position %d: %w", o.sql.prefix, r.Position, o.explain(err))
	}
	return r, nil
}

func (o *Outbox) replayEnd(ctx context.Context, r *ReplayResult) (gaps, error) {
	var token, swept int64
	var missing []byte
	if err := o.db.QueryRowContext(ctx, o.sql.taken).Scan(&token, &r.End, &missing, &swept); err != nil {
		return nil, err
	}
	r.Position = min(max(r.Position, swept), r.End)
	return decodeGaps(missing)
}

func (o *Outbox) replayStep(ctx context.Context, to message.Publisher, q ReplayQuery, missing gaps, r *ReplayResult) error {
	upTo := min(r.End, r.Position+replayRange)
	rows, err := o.replayRows(ctx, q, r.Position, upTo)
	if err != nil {
		return err
	}
	if len(rows) == replayStep {
		upTo = rows[len(rows)-1].position
	}
	batch := replayBatch{ctx: ctx, to: to, dry: q.DryRun}
	for _, w := range rows {
		if _, unpublished := missing.find(w.position); unpublished {
			continue
		}
		m, err := w.message()
		if err != nil {
			return fmt.Errorf("event %s: %w", w.id, err)
		}
		if q.Type != "" && m.Metadata[eventbus.MetadataType] != q.Type {
			continue
		}
		if err := batch.add(w.topic, m); err != nil {
			return err
		}
		r.Matched++
	}
	if err := batch.flush(); err != nil {
		return err
	}
	r.Position = upTo
	return nil
}

// replayRows reads what can be selected by columns.
func (o *Outbox) replayRows(ctx context.Context, q ReplayQuery, after, upTo int64) ([]*row, error) {
	var b strings.Builder
	b.WriteString(o.sql.ahead)
	b.WriteByte(')')
	args := []any{after, upTo}
	where := func(condition string, arg any) {
		b.WriteString(condition)
		args = append(args, arg)
	}
	if q.Topic != "" {
		where(" AND topic = ?", q.Topic)
	}
	if q.Key != "" {
		where(" AND "+o.sql.keyColumn+" = ?", []byte(q.Key))
	}
	if !q.From.IsZero() {
		where(" AND created_at >= ?", q.From.UnixMilli())
	}
	if !q.To.IsZero() {
		where(" AND created_at < ?", q.To.UnixMilli())
	}
	where(" ORDER BY position LIMIT ?", replayStep)
	return o.queryRows(ctx, nil, o.sql.dialect.Rebind(b.String()), args)
}

// replayBatch publishes consecutive events of one topic together.
type replayBatch struct {
	ctx      context.Context
	to       message.Publisher
	dry      bool
	topic    string
	messages []*message.Message
}

const replayBatchSize = 100

func (b *replayBatch) add(topic string, m *message.Message) error {
	if b.dry {
		return nil
	}
	if topic != b.topic || len(b.messages) == replayBatchSize {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.topic = topic
	m.SetContext(b.ctx)
	b.messages = append(b.messages, m)
	return nil
}

func (b *replayBatch) flush() error {
	if len(b.messages) == 0 {
		return nil
	}
	if err := b.ctx.Err(); err != nil {
		return context.Cause(b.ctx)
	}
	err := b.to.Publish(b.topic, b.messages...)
	b.messages = nil
	if err != nil {
		return fmt.Errorf("topic %q: %w", b.topic, err)
	}
	return nil
}
