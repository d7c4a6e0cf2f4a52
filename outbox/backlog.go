package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrBacklog says that too many events wait to be published; see [MaxBacklog].
var ErrBacklog = errors.New("the backlog is full: the relay does not run, or the broker does not keep up")

// MaxBacklog makes Publish fail with an error that wraps [ErrBacklog] while about
// n events or more are in the log and not published, so that a broker that is
// down for long stops the work that would be lost on it instead of filling the
// disk. The backlog is looked up every 250 ms at most, on a connection besides
// the transaction's (a pool of one can't: then there is no bound), so it may be
// exceeded by what is written in between; rolled back events count until the
// next one is published. Scheduled events don't.
// Defaults to no bound.
func MaxBacklog(n int64) Option { return func(c *config) { c.maxBacklog = n } }

const (
	backlogEvery   = 250 * time.Millisecond
	backlogTimeout = 100 * time.Millisecond
	backlogRest    = 10 * time.Second // after it could not be looked up
)

// checkBacklog returns an error while the backlog is full.
func (o *Outbox) checkBacklog(ctx context.Context) error {
	if o.maxBacklog == 0 {
		return nil
	}
	o.backlog.Lock()
	defer o.backlog.Unlock()
	if time.Now().After(o.backlog.next) {
		o.backlog.next = time.Now().Add(backlogEvery)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backlogTimeout)
		defer cancel()
		if err := o.db.QueryRowContext(ctx, o.sql.backlog).Scan(&o.backlog.size); err != nil {
			o.backlog.next = time.Now().Add(backlogRest)
			o.log().Warn("outbox: the size of the backlog can't be looked up; the last one counts meanwhile", "error", err, "again in", backlogRest)
		}
	}
	if o.backlog.size >= o.maxBacklog {
		return fmt.Errorf("about %d events wait: %w", o.backlog.size, ErrBacklog)
	}
	return nil
}
