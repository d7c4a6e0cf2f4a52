package sqlbus

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// row is an event on its way into the file.
type row struct {
	partition int
	key, id   string
	metadata  []byte
	payload   []byte
	due       int64 // 0: at once
}

// Publish implements driver.Broker. The messages of one call are committed
// together, or none is.
func (b *Broker) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	if err := b.publish(topic, messages); err != nil {
		return fmt.Errorf("sqlbus: publish to topic %q in %w", topic, b.engine.explain(err))
	}
	return nil
}

func (b *Broker) publish(topic string, messages []*message.Message) error {
	if err := driver.CheckTopic(topic); err != nil {
		return err
	}
	if err := driver.CheckBatch(topic, messages, func(m *message.Message) error { return b.check(topic, m) }); err != nil {
		return err
	}
	if err := b.enter(); err != nil {
		return err
	}
	defer b.calls.Done()
	rows, size, delayed := b.rows(messages)
	ctx, cancel := b.untilClosed(messages[0].Context())
	defer cancel()
	if err := b.engine.publish(ctx, topic, rows, size); err != nil {
		if errors.Is(err, errUnknown) {
			return fmt.Errorf("event %s may have been published: %w", messages[0].UUID, err)
		}
		return fmt.Errorf("event %s was not published: %w", messages[0].UUID, err)
	}
	b.wake(topic)
	if delayed {
		poke(b.dueChanged)
	}
	return nil
}

// check refuses what the database can't take.
func (b *Broker) check(topic string, m *message.Message) error {
	if err := driver.CheckMessage(topic, m, b.Capabilities()); err != nil {
		return err
	}
	if size, most := rowSize(m), b.store.maxRow; most > 0 && size > most {
		return driver.Permanent(fmt.Errorf("topic %q: event %s: %w: %d bytes with its metadata, the server's max_allowed_packet leaves room for %d", topic, m.UUID, driver.ErrTooLarge, size, most))
	}
	return nil
}

// rowSize is at least that of the row that m becomes.
func rowSize(m *message.Message) int {
	const each = 32 // of what surrounds names and values
	size := len(m.Payload) + len(m.UUID) + len(driver.Key(m))
	for name, value := range m.Metadata {
		size += len(name) + len(value) + each
	}
	return size
}

// rows copies nothing: the caller waits until they are written.
func (b *Broker) rows(messages []*message.Message) (rows []row, size int, delayed bool) {
	rows = make([]row, len(messages))
	now := time.Now()
	for i, m := range messages {
		r := row{key: driver.Key(m), id: m.UUID, metadata: driver.EncodeMetadata(m.Metadata), payload: m.Payload}
		if r.payload == nil {
			r.payload = []byte{}
		}
		r.partition = partitionOf(r.key, b.store.partitions)
		if due, _ := driver.Due(m); due.After(now) { // checked before
			r.due, delayed = microsUp(due), true
		}
		rows[i] = r
		size += len(r.metadata) + len(r.payload)
	}
	return rows, size, delayed
}

// partitionOf is part of the stored format: all processes must agree.
func partitionOf(key string, partitions int) int {
	if key == "" {
		return rand.IntN(partitions)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // never fails
	return int(h.Sum32() % uint32(partitions))
}

// microsUp rounds up, so that nothing is due early.
func microsUp(t time.Time) int64 {
	return t.Add(time.Microsecond - time.Nanosecond).UnixMicro()
}

// untilClosed returns ctx, ending with driver.ErrClosed when the broker closes.
func (b *Broker) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(b.open, func() { cancel(driver.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}
