package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
	"github.com/millrace-go/millrace/saga"
)

// deadline is a saga that waits for something that does not come.
func deadline(timeout time.Duration) saga.Definition[order] {
	return saga.Definition[order]{
		Name: "deadline", Version: 1,
		Steps: []saga.Node[order]{saga.Step[order]{Name: "wait", Success: saga.Signal[order, string]("paid", nil), Timeout: timeout}},
	}
}

const timerSeconds = 3

// timers has the timers of sleeping instances become due at a steady rate, and
// tells how late their wake-ups leave the outbox, and how late the transitions
// that follow are stored.
func (b *bench) timers() error {
	fmt.Printf("\n### Timers, due over %d seconds\n\n| due each second | wake-up published late by p50 | p99 | the last | transition stored late by p50 | p99 | the last |\n|---|---|---|---|---|---|---|\n", timerSeconds)
	for _, rate := range slices.Compact([]int{b.plan.timers / 10, b.plan.timers * 3 / 10, b.plan.timers}) {
		if err := b.expire(max(1, rate)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) expire(rate int) error {
	if err := b.rest(); err != nil {
		return err
	}
	a := &alarms{left: make(chan struct{}), dues: make([]time.Time, rate*timerSeconds)}
	a.published, a.moved = make([]atomic.Int64, len(a.dues)), make([]atomic.Int64, len(a.dues))
	// To load them takes a while, the longer the more there are.
	first := time.Now().Add(5*time.Second + time.Duration(len(a.dues))*500*time.Microsecond).Truncate(time.Millisecond)
	for i := range a.dues {
		a.dues[i] = first.Add(time.Duration(i) * time.Second / time.Duration(rate)).Truncate(time.Millisecond)
	}
	if err := b.sleep(a.dues); err != nil {
		return err
	}
	if !time.Now().Before(first) {
		return errors.New("the instances could not be made before their timers were due")
	}
	s := *b.pgx
	if err := s.orchestrate(saga.Config{Observer: a.observe}, deadline(time.Hour)); err != nil {
		return err
	}
	stop, err := s.serve(b.ctx, a.tap)
	if err != nil {
		return err
	}
	select {
	case <-a.left:
	case <-time.After(time.Until(first) + 2*time.Minute):
		err = fmt.Errorf("only %d of %d timers have expired", a.expired.Load(), len(a.dues))
	}
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	fmt.Printf("| %s | %s | %s |\n", rounds.Thousands(rate), a.late(a.published), a.late(a.moved))
	return nil
}

// sleep stores instances whose timers are due at the given times.
func (b *bench) sleep(dues []time.Time) error {
	box := pgxoutbox.New(b.pool)
	defer func() { _ = box.Close() }()
	for first := 0; first < len(dues); first += 1000 {
		var made collector
		for i := first; i < min(first+1000, len(dues)); i++ {
			if err := made.start(b.ctx, strconv.Itoa(i), dues[i]); err != nil {
				return err
			}
		}
		if err := box.Transact(b.ctx, made.store(box)); err != nil {
			return err
		}
	}
	return nil
}

// collector is a store that keeps what is committed, to write all of it at once.
type collector struct {
	saga.Store
	commits []saga.Commit
}

func (c *collector) Commit(_ context.Context, commit saga.Commit) error {
	c.commits = append(c.commits, commit)
	return nil
}

// start begins an instance that waits until due.
func (c *collector) start(ctx context.Context, id string, due time.Time) error {
	d := deadline(due.Sub(time.Now().Truncate(time.Millisecond)))
	o, err := saga.NewOrchestrator(c, saga.Config{Logger: silent, CacheSize: -1}, d)
	if err != nil {
		return err
	}
	_, err = saga.Execute(ctx, o, d, id, newOrder())
	return err
}

// store writes the instances, without a history, and their wake-ups.
func (c *collector) store(box *pgxoutbox.Outbox) func(ctx context.Context, tx pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		columns := []string{"saga", "id", "version", "revision", "status", "state_version", "wake_at", "created_at", "updated_at", "rested_at", "error", "progress", "state"}
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"millrace_saga"}, columns, pgx.CopyFromSlice(len(c.commits), func(n int) ([]any, error) {
			i := c.commits[n].Instance
			return []any{i.Saga, []byte(i.ID), i.Version, i.Revision, string(i.Status), i.StateVersion, i.Wake.UnixMilli(), i.Created.UnixMilli(), i.Updated.UnixMilli(), 0,
				i.Error, []byte(i.Progress), []byte(i.State)}, nil
		}))
		if err != nil {
			return err
		}
		var wakes []*message.Message
		for _, commit := range c.commits {
			for _, m := range commit.Messages {
				m.Message.SetContext(ctx)
				wakes = append(wakes, m.Message)
			}
		}
		return box.In(tx).Publish(c.commits[0].Messages[0].Topic, wakes...)
	}
}

// alarms notes when timers expire. Instances are named by their number.
type alarms struct {
	dues             []time.Time
	published, moved []atomic.Int64 // nanoseconds after they were due; 0 if not yet
	expired          atomic.Int64
	left             chan struct{} // closed when all have expired
}

func (a *alarms) note(in []atomic.Int64, id string) {
	if i, err := strconv.Atoi(id); err == nil && i < len(in) {
		in[i].CompareAndSwap(0, max(1, int64(time.Since(a.dues[i]))))
	}
}

// tap notes what is published to a bus.
func (a *alarms) tap(bus message.Publisher) message.Publisher { return tapped{bus, a} }

type tapped struct {
	message.Publisher
	alarms *alarms
}

func (t tapped) Publish(topic string, messages ...*message.Message) error {
	err := t.Publisher.Publish(topic, messages...)
	for _, m := range messages {
		t.alarms.note(t.alarms.published, m.Metadata[eventbus.MetadataKey])
	}
	return err
}

func (a *alarms) observe(o saga.Observation) {
	a.note(a.moved, o.Instance.ID)
	if a.expired.Add(1) == int64(len(a.dues)) {
		close(a.left)
	}
}

func (a *alarms) late(by []atomic.Int64) string {
	all := make([]time.Duration, len(by))
	for i := range by {
		all[i] = time.Duration(by[i].Load())
	}
	slices.Sort(all)
	show := func(d time.Duration) string { return d.Round(time.Millisecond).String() }
	return fmt.Sprintf("%s | %s | %s", show(all[len(all)/2]), show(all[len(all)*99/100]), show(all[len(all)-1]))
}
