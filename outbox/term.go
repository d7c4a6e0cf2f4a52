package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// term is the time during which one relay is active. Four activities share it:
// the reader adds rows to the dispatcher, workers publish what the dispatcher
// hands out, the committer records how far that has come, and the sweeper
// deletes what is recorded.
type term struct {
	*Relay
	lease  *lease // the committer's
	log    *slog.Logger
	wake   <-chan struct{}
	rows   *dispatch.Dispatcher[*row]
	lane   *dispatch.Lane[*row]
	broker *broker            // of topics without a route
	routes map[string]*broker // by topic
	held   heldKeys
	detour detour

	// intake ends when the relay is being stopped, work when nothing more may be
	// taken up, publishing when calls of Publish must return.
	intake, work, publishing context.Context
	stopWork, stopPublishing context.CancelCauseFunc
	expiry                   *time.Timer
	stopBy                   atomic.Int64 // wall clock, Unix milliseconds

	moved   chan struct{} // the watermark moved
	read    chan struct{} // closed when the reader has ended
	drained chan struct{} // closed when all that was read is published and recorded

	cursor    *cursor
	recorded  atomic.Int64  // how many rows are published according to the database
	complete  atomic.Int64  // the position up to which it says that nothing is missing
	swept     atomic.Int64  // the position up to which all rows are deleted
	recording time.Duration // how long that took last time
	stuck     atomic.Bool   // progress can't be recorded

	recordingSince atomic.Int64  // Unix milliseconds, 0: it is not being recorded
	advancing      chan struct{} // progress was recorded
}

func newTerm(r *Relay, l *lease, wake <-chan struct{}, log *slog.Logger) *term {
	t := &term{
		Relay: r, lease: l, log: log, wake: wake,
		moved:     make(chan struct{}, 1),
		advancing: make(chan struct{}, 1),
		read:      make(chan struct{}),
		drained:   make(chan struct{}),
	}
	t.broker, t.routes = &broker{to: r.to}, map[string]*broker{}
	for _, route := range r.cfg.routes {
		b := &broker{to: route.to}
		for _, topic := range route.topics {
			t.routes[topic] = b
		}
	}
	t.detour.over.L, t.detour.takenTo = &t.detour.mu, l.published
	t.cursor = newCursor(l.published, l.missing)
	t.cursor.gapless = r.box.sql.dialect == SQLite
	t.complete.Store(l.complete())
	t.swept.Store(l.swept)
	t.rows = dispatch.New[*row](dispatch.Config{Limit: r.cfg.limit, Progress: func() { signal(t.moved) }})
	t.lane = t.rows.Lane()
	return t
}

// signal wakes whoever waits for ch, or the next one to do so.
func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

var errStopped = errors.New("outbox: the relay is being stopped")

// serve publishes until ctx ends or the lease is lost. An error means that the
// publisher is stuck.
func (t *term) serve(ctx context.Context) error {
	base := context.WithoutCancel(ctx)
	t.intake = ctx
	t.work, t.stopWork = context.WithCancelCause(base)
	t.publishing, t.stopPublishing = context.WithCancelCause(base)
	defer t.stopPublishing(errStopped)
	defer t.stopWork(errStopped)
	t.expiry = time.AfterFunc(time.Until(t.lease.stopBy()), func() { t.lost(errExpired) })
	t.stopBy.Store(t.lease.stopBy().UnixMilli())
	defer t.expiry.Stop()

	for t.work.Err() == nil && ctx.Err() == nil {
		err := t.loadHeld()
		if err == nil {
			break
		}
		t.databaseError("read the parked keys", err)
	}

	var reader, committer, workers, sweeper sync.WaitGroup
	reader.Go(func() { defer close(t.read); t.readLog() })
	sweeper.Go(t.sweep)
	workers.Go(func() { t.rows.WorkBatches(t.work, t.cfg.workers, t.cfg.batch, t.deliver) })
	committer.Go(t.record)

	select {
	case <-t.work.Done():
	case <-ctx.Done():
		t.drain()
	}
	finished := t.endWorkers(ctx, &workers)
	committer.Wait()
	sweeper.Wait()
	if finished { // otherwise the reader may wait for a detour that does not return
		reader.Wait()
	}
	return t.close(finished)
}

// lost ends the term at once: another relay may be publishing from now on.
func (t *term) lost(why error) {
	t.stopWork(why)
	t.stopPublishing(fmt.Errorf("outbox: %w", why))
}

// drain goes on until everything in the log is published, as far as the broker
// takes it and time allows.
func (t *term) drain() {
	limit := time.NewTimer(t.cfg.drain)
	defer limit.Stop()
	down := time.NewTicker(10 * time.Millisecond)
	defer down.Stop()
	for {
		select {
		case <-t.drained:
		case <-t.work.Done():
		case <-limit.C:
		case <-down.C:
			if !t.down() {
				continue
			}
		}
		break
	}
	t.stopWork(errStopped)
}

// grace is how long Publish may take to return after its context has ended.
const grace = time.Second

// endWorkers waits for running calls of Publish. It reports false when they
// outlast their context; a term that has lost its lease waits for them as long
// as the relay is not stopped, for what they still hold must not be published
// beside a newer term.
func (t *term) endWorkers(ctx context.Context, workers *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() { workers.Wait(); close(done) }()
	if ctx.Err() != nil {
		if waitFor(done, grace/2) {
			return true
		}
		t.stopPublishing(errStopped)
		return waitFor(done, grace)
	}
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return waitFor(done, grace)
	}
}

func waitFor(done <-chan struct{}, d time.Duration) bool {
	limit := time.NewTimer(d)
	defer limit.Stop()
	select {
	case <-done:
		return true
	case <-limit.C:
		return false
	}
}

// close records the last progress and gives the lease back, unless it is lost.
func (t *term) close(finished bool) error {
	t.lane.Abandon() // stops the timers of retries; what runs is settled no more
	why := context.Cause(t.work)
	if errors.Is(why, errFenced) || errors.Is(why, errExpired) {
		t.log.Warn("outbox: the relay has lost its lease and stands by", "reason", why)
	}
	if errors.Is(why, errRestarted) {
		t.log.Warn("outbox: the database server has restarted; the relay begins where it has recorded to be")
	}
	if !errors.Is(why, errFenced) && !errors.Is(why, errRestarted) {
		t.recordLast()
		t.sweepLast()
	}
	if !finished {
		return fmt.Errorf("%T did not return from Publish although the context of its messages had ended; the lease is left to expire", t.to)
	}
	if !errors.Is(why, errFenced) {
		t.lease.swept = t.swept.Load()
		t.box.release(t.lease, t.log)
	}
	return nil
}
