package pgxoutbox

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/outbox"
)

// Relay is an outbox.Relay that other processes wake, too.
type Relay struct {
	*outbox.Relay
	box *Outbox
}

var _ eventbus.Runner = (*Relay)(nil)

// Relay returns a relay to any Watermill publisher; see [outbox.Outbox.Relay].
func (o *Outbox) Relay(to message.Publisher, opts ...outbox.RelayOption) *Relay {
	return &Relay{Relay: o.Outbox.Relay(to, opts...), box: o}
}

// Run publishes events until ctx ends; see [outbox.Relay.Run].
func (r *Relay) Run(ctx context.Context) error {
	listening, stop := context.WithCancel(ctx)
	var listener sync.WaitGroup
	defer listener.Wait()
	defer stop()
	if r.box.pool != nil {
		defer r.box.running(r.Relay)()
		listener.Go(func() { r.box.listen(listening) })
	}
	return r.Relay.Run(ctx)
}

// listenPause is how long to wait before listening again after the connection
// was lost. Polling goes on meanwhile.
const listenPause = time.Second

// listen pokes the relays of this process for each notification, until ctx ends.
func (o *Outbox) listen(ctx context.Context) {
	for ctx.Err() == nil {
		_ = o.listenOnce(ctx)
		dialect.Sleep(ctx, listenPause)
	}
}

func (o *Outbox) listenOnce(ctx context.Context) error {
	pooled, err := o.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	conn := pooled.Hijack() // it must not go back to the pool while it listens
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{o.Name()}.Sanitize()); err != nil {
		return err
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
		o.Poke()
	}
}
