package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// persistTimeout bounds Subscribe and Seek.
const persistTimeout = time.Minute

var errPersistTimeout = fmt.Errorf("no broker has answered within %v", persistTimeout)

// persistBounded is persist for callers that have no bound of their own.
func (b *Broker) persistBounded(ctx context.Context, do func(context.Context) error) error {
	ctx, stop := context.WithTimeoutCause(ctx, persistTimeout, errPersistTimeout)
	defer stop()
	return b.persist(ctx, do)
}

// persist calls do again while it fails for a lost connection and the like, until
// ctx ends. The client gives up too early on some of them.
func (b *Broker) persist(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := b.untilClosed(ctx)
	defer cancel()
	for {
		err := do(ctx)
		switch {
		case err == nil || isAnswer(err) || driver.IsPermanent(err) || errors.Is(err, driver.ErrBusy):
			return err
		case ctx.Err() != nil:
			return b.late(context.Cause(ctx))
		}
		select {
		case <-time.After(mendPause):
		case <-ctx.Done():
			return b.late(context.Cause(ctx))
		}
	}
}

// reachable returns at once unless connecting has failed of late. Then it waits
// until a broker answers, so that an event whose caller gives up meanwhile is not
// in the client's hands and published later.
func (b *Broker) reachable(ctx context.Context) error {
	if b.conn.lastErr.Load() == nil {
		return nil
	}
	return b.persist(ctx, func(ctx context.Context) error {
		select {
		case b.pinging <- struct{}{}:
			defer func() { <-b.pinging }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		trouble := b.conn.lastErr.Load()
		if trouble == nil {
			return nil
		}
		if err := b.current().Ping(ctx); err != nil {
			return err
		}
		b.conn.lastErr.CompareAndSwap(trouble, nil)
		return nil
	})
}

// isAnswer reports whether a broker refused what it was asked for. All else, such
// as a lost connection or another caller's context that took neighbours of its
// record along, is worth another try.
func isAnswer(err error) bool {
	var answer *kerr.Error
	return errors.As(err, &answer) && !answer.Retriable
}
