package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
)

// job is an event as River takes it.
type job struct {
	ID      string `json:"id"`
	Payload string `json:"payload"`
}

func (job) Kind() string { return "event" }

type worker struct {
	river.WorkerDefaults[job]
	work *atomic.Pointer[func(job)]
}

func (w worker) Work(_ context.Context, j *river.Job[job]) error {
	(*w.work.Load())(j.Args)
	return nil
}

// queue is River.
type queue struct {
	*bench
	insert *river.Client[pgx.Tx]
}

func newQueue(b *bench) (*queue, error) {
	m, err := rivermigrate.New(riverpgxv5.New(b.pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if _, err := m.Migrate(b.ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	c, err := river.NewClient(riverpgxv5.New(b.pool), &river.Config{Logger: slog.New(slog.DiscardHandler)})
	return &queue{b, c}, err
}

// enqueue inserts a job within a transaction.
func (q *queue) enqueue(tx pgx.Tx, id string) error {
	_, err := q.insert.InsertTx(q.ctx, tx, job{id, string(payload)}, nil)
	return err
}

// start works jobs.
func (q *queue) start(workers int, cooldown time.Duration, work func(job)) (stop func(), err error) {
	var p atomic.Pointer[func(job)]
	p.Store(&work)
	all := river.NewWorkers()
	river.AddWorker(all, worker{work: &p})
	c, err := river.NewClient(riverpgxv5.New(q.pool), &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}}, Workers: all,
		Logger: slog.New(slog.DiscardHandler), FetchCooldown: cooldown,
	})
	if err != nil {
		return nil, err
	}
	if err := c.Start(q.ctx); err != nil {
		return nil, err
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = c.Stop(ctx)
	}, nil
}

func (q *queue) load(n int) error {
	if err := q.truncate("river_job"); err != nil {
		return err
	}
	for left := n; left > 0; left -= 1000 {
		jobs := make([]river.InsertManyParams, min(left, 1000))
		for i := range jobs {
			jobs[i].Args = job{"", string(payload)}
		}
		if _, err := q.insert.InsertManyFast(q.ctx, jobs); err != nil {
			return err
		}
	}
	return q.settle("river_job")
}

func (b *bench) riverDrains(n int) []rounds.Variant {
	q, err := newQueue(b)
	if err != nil {
		return []rounds.Variant{failing(err)}
	}
	drain := func(name string, workers int, cooldown time.Duration) rounds.Variant {
		return rounds.Variant{Name: name, Prepare: func() error { return q.load(n) }, Run: func() (rounds.Sample, error) {
			c := newCounter(n)
			start := time.Now()
			stop, err := q.start(workers, cooldown, func(j job) { c.hit([]byte(j.Payload)) })
			if err != nil {
				return rounds.Sample{}, err
			}
			defer stop()
			return b.until(c, start), nil
		}}
	}
	return []rounds.Variant{
		drain(rivers, 100, 0),
		drain(riversBest, 1000, time.Millisecond),
	}
}
