package main

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	wm "github.com/ThreeDotsLabs/watermill"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/outbox"
)

// forward is Watermill's forwarder on watermill-sql as its documentation sets it
// up; it does not know SQLite.
type forward struct {
	*bench
	topic  string
	schema wmsql.SchemaAdapter
	full   map[int]bool // sizes of backlogs that there is a copy of
}

// newForward makes the tables of a topic.
func newForward(b *bench, topic string) (*forward, error) {
	f := &forward{bench: b, topic: topic, full: map[int]bool{}}
	f.schema = f.batches(0)
	p, err := wmsql.NewPublisher(b.db, wmsql.PublisherConfig{SchemaAdapter: f.schema, AutoInitializeSchema: true}, wm.NopLogger{})
	if err != nil {
		return nil, err
	}
	if err := p.Publish(topic, message.NewMessage("first", []byte("{}"))); err != nil {
		return nil, err
	}
	return f, f.truncate(f.table())
}

func (f *forward) table() string { return "watermill_" + f.topic }

// batches returns a schema that reads n messages at a time, 0: its default, 100.
func (f *forward) batches(n int) wmsql.SchemaAdapter {
	if f.dialect == outbox.MySQL {
		return wmsql.DefaultMySQLSchema{SubscribeBatchSize: n}
	}
	return wmsql.DefaultPostgreSQLSchema{SubscribeBatchSize: n}
}

// publish writes events within a transaction.
func (f *forward) publish(tx *sql.Tx, events ...*message.Message) error {
	p, err := wmsql.NewPublisher(tx, wmsql.PublisherConfig{SchemaAdapter: f.schema}, wm.NopLogger{})
	if err != nil {
		return err
	}
	return forwarder.NewPublisher(p, forwarder.PublisherConfig{ForwarderTopic: f.topic}).Publish(topic, events...)
}

// start runs a forwarder to a publisher.
func (f *forward) start(batch int, to message.Publisher) (stop func(), err error) {
	var offsets wmsql.OffsetsAdapter = wmsql.DefaultPostgreSQLOffsetsAdapter{}
	if f.dialect == outbox.MySQL {
		offsets = wmsql.DefaultMySQLOffsetsAdapter{}
	}
	s, err := wmsql.NewSubscriber(f.db, wmsql.SubscriberConfig{SchemaAdapter: f.batches(batch), OffsetsAdapter: offsets, InitializeSchema: true}, wm.NopLogger{})
	if err != nil {
		return nil, err
	}
	run, err := forwarder.NewForwarder(s, to, wm.NopLogger{}, forwarder.Config{ForwarderTopic: f.topic})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(f.ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = run.Run(ctx) })
	return func() { _ = run.Close(); cancel(); running.Wait() }, nil
}

// load fills the topic and forgets what was consumed. The first time rows are
// published, then they are copied.
func (f *forward) load(rows int) error {
	if err := f.truncate(f.table()); err != nil {
		return err
	}
	if err := f.exec("DROP TABLE IF EXISTS watermill_offsets_" + f.topic); err != nil {
		return err
	}
	full := fmt.Sprintf("%s_%d", f.table(), rows)
	if f.full[rows] {
		if err := f.exec("INSERT INTO " + f.table() + " SELECT * FROM " + full); err != nil {
			return err
		}
		return f.settle(f.table())
	}
	if err := f.write(rows); err != nil {
		return err
	}
	if err := f.exec("CREATE TABLE " + full + " AS SELECT * FROM " + f.table()); err != nil {
		return err
	}
	f.full[rows] = true
	return f.settle(f.table())
}

func (f *forward) write(rows int) error {
	tx, err := f.db.BeginTx(f.ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	const batch = 500
	for n := 0; n < rows; n += batch {
		events := make([]*message.Message, min(batch, rows-n))
		for i := range events {
			events[i] = event(f.ctx, fmt.Sprint("order-", n+i))
		}
		if err := f.publish(tx, events...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// draining is how it drains; it is stopped after a while, for it slows down with
// what is left.
func (f *forward) draining(name string, batch, rows int) rounds.Variant {
	return rounds.Variant{
		Name:    name,
		Prepare: func() error { return f.load(rows) },
		Run: func() (rounds.Sample, error) {
			c := newCounter(rows)
			start := time.Now()
			stop, err := f.start(batch, c)
			if err != nil {
				return rounds.Sample{}, err
			}
			defer stop()
			return f.until(c, start), nil
		},
	}
}

// until waits for all events, as long as a run may take.
func (b *bench) until(c *counter, start time.Time) rounds.Sample {
	select {
	case <-c.done:
		return rounds.Sample{N: int(c.want), Took: time.Since(start)}
	case <-b.ctx.Done():
	case <-time.After(b.limit):
	}
	n := int(c.seen.Load())
	return rounds.Sample{N: n, Took: time.Since(start), Note: fmt.Sprintf("stopped after %s of %s", rounds.Thousands(n), rounds.Thousands(int(c.want)))}
}
