package sqlbus

import (
	"context"
	"errors"
	"time"
)

// writer owns the writing connection. It commits the ops of all goroutines in
// groups, since the price of a commit is one fsync however much is in it. It
// also watches for commits of others, which on this connection alone can be
// told from our own.
type writer struct {
	file    *file
	poll    time.Duration
	changed func() // called when somebody else committed

	queue

	queued  chan struct{}
	stop    chan struct{}
	stopped chan struct{}
	version int64     // of the data as of watched
	watched time.Time // last check for changes
}

func newWriter(f *file, poll time.Duration, changed func()) *writer {
	return &writer{
		file: f, poll: poll, changed: changed,
		queued: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
}

// do runs an op and returns its result once it is durable. If ctx ends before
// the op's transaction has begun, do returns the cause and the op never runs;
// size is its weight in bytes.
func (w *writer) do(ctx context.Context, size int, run func(*session) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o := &op{run: run, size: size, done: make(chan struct{})}
	w.push(o)
	poke(w.queued)
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
	}
	if w.abandon(o) {
		return context.Cause(ctx)
	}
	<-o.done
	if errors.Is(o.err, errAbandoned) {
		return context.Cause(ctx)
	}
	return o.err
}

// loop is the writer's goroutine. It ends after close, with an empty queue.
func (w *writer) loop() {
	defer close(w.stopped)
	tick := time.NewTicker(w.poll)
	defer tick.Stop()
	for {
		select {
		case <-w.queued:
			w.flush()
		case <-tick.C:
		case <-w.stop:
			w.flush()
			return
		}
		w.watch()
	}
}

// close waits for what is queued. Nothing may be queued after it.
func (w *writer) close() {
	close(w.stop)
	<-w.stopped
}

func (w *writer) flush() {
	for wait := time.Duration(0); w.pending(); {
		err := w.begin()
		switch {
		case err == nil:
			err = w.commit(w.take())
		case !isBusy(err):
			// In case a rollback has failed: SQLite has no transaction in a transaction.
			_, _ = w.file.write.exec("ROLLBACK")
			for _, o := range w.take() {
				o.finish(err)
			}
		}
		if !isBusy(err) {
			wait = 0
			continue
		}
		// Short and random: whoever holds the lock will have it again soon.
		wait = min(wait+200*time.Microsecond, 3*time.Millisecond)
		time.Sleep(jitter(wait))
		w.watch()
	}
}

// begin takes the lock of the file before any op is taken from the queue: until
// then their callers can still leave.
func (w *writer) begin() error {
	_, err := w.file.write.exec("BEGIN IMMEDIATE")
	return err
}

// commit settles the ops of a batch. It returns an error only if the batch must
// be tried again because the file is locked.
func (w *writer) commit(batch []*op) error {
	err := w.run(batch)
	if err == nil {
		for _, o := range batch {
			o.finish(nil)
		}
		return nil
	}
	_, _ = w.file.write.exec("ROLLBACK") // SQLite may have done so by itself
	switch {
	case isBusy(err):
		w.again(batch, false)
		return err
	case len(batch) == 1:
		batch[0].finish(err)
	default:
		w.again(batch, true)
	}
	return nil
}

func (w *writer) run(batch []*op) error {
	for _, o := range batch {
		if err := o.run(w.file.write); err != nil {
			return err
		}
	}
	_, err := w.file.write.exec("COMMIT")
	return err
}

// watch calls changed if somebody else has committed since the last call. It
// looks at most once per poll.
func (w *writer) watch() {
	if time.Since(w.watched) < w.poll/2 {
		return
	}
	w.watched = time.Now()
	version, _, err := w.file.write.number("PRAGMA data_version")
	if err == nil && version == w.version {
		return
	}
	w.version = version // after an error: whatever comes next counts as a change
	w.changed()
}
