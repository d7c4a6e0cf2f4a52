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
	conn, err := o.connect(ctx)
	if err != nil {
		return err
	}
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

// connect makes a connection as the pool does. One that is taken from the pool
// would be missed by the relay, which has just begun and would wait for another.
func (o *Outbox) connect(ctx context.Context) (*pgx.Conn, error) {
	c := o.pool.Config()
	if c.BeforeConnect != nil {
		if err := c.BeforeConnect(ctx, c.ConnConfig); err != nil {
			return nil, err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, c.ConnConfig)
	if err == nil && c.AfterConnect != nil {
		if err = c.AfterConnect(ctx, conn); err != nil {
			_ = conn.Close(ctx)
		}
	}
	return conn, err
}
