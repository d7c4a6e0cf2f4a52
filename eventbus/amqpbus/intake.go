package amqpbus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// intake reads one queue on a channel of its own. It is the unit that moves
// between members: a queue has one active consumer, the next in line becomes
// active when the channel of the former is closed, and closing it puts what was
// not acknowledged back in front, in order.
type intake struct {
	c      *consumer
	s      *session
	queue  int
	lane   *dispatch.Lane[*record]
	former *dispatch.Lane[*record] // of the same queue, nil for the first

	giveUp  context.Context // ends when the queue is to be given up
	leaving context.CancelFunc
	patient bool // set before leaving: handlers are waited for without bound

	err error // why it ended, nil if it was given up
}

func (c *consumer) newIntake(s *session, queue int) *intake {
	in := &intake{c: c, s: s, queue: queue, lane: c.work.Lane(), former: c.former[queue]}
	in.giveUp, in.leaving = context.WithCancel(context.Background())
	return in
}

var errCancelled = errors.New("the broker ended the subscription")

func (in *intake) run() {
	defer func() { in.c.ended <- in }()
	defer in.lane.Abandon()
	if !in.awaitFormer() {
		return
	}
	ch, err := in.s.conn.Channel()
	if err != nil {
		in.err = err
		return
	}
	defer in.close(ch)
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	deliveries, err := in.consume(ch)
	if err != nil {
		in.err = err
		return
	}
	t := newTally(ch, in.c.b.cfg.Prefetch)
	defer t.close()
	if in.read(deliveries, t) {
		return
	}
	in.lane.Abandon() // before anything else: what it holds comes again
	in.err = errCancelled
	select {
	case e := <-closed:
		if e != nil {
			in.err = e
		}
	default:
	}
}

// close puts back what was not acknowledged.
func (in *intake) close(ch *amqp.Channel) {
	defer in.s.guard()()
	_ = ch.Close()
}

// awaitFormer waits for handlers of events that may be about to come again.
func (in *intake) awaitFormer() bool {
	if in.former == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(in.giveUp, in.c.b.cfg.RevokeTimeout)
	defer cancel()
	if err := in.former.Revoke(ctx); err != nil && in.giveUp.Err() == nil {
		in.c.log.Warn("amqpbus: a handler still runs although its event was lost with the connection, the event may be handled twice at a time",
			"queue", in.c.names.queues[in.queue], "waited", in.c.b.cfg.RevokeTimeout)
	}
	return in.giveUp.Err() == nil
}

func (in *intake) consume(ch *amqp.Channel) (<-chan amqp.Delivery, error) {
	queue := in.c.names.queues[in.queue]
	if err := ch.Qos(in.c.b.cfg.Prefetch, 0, false); err != nil {
		return nil, err
	}
	// Without waiting for the answer, which a quorum queue that has no majority
	// owes for a minute; a refusal closes the channel.
	deliveries, err := ch.Consume(queue, "", false, false, false, true, nil)
	if err != nil {
		return nil, fmt.Errorf("queue %q: %w", queue, err)
	}
	return deliveries, nil
}

// read hands deliveries out until the queue is given up, in which case it
// returns true after everything that is done was acknowledged, or the channel is
// gone.
func (in *intake) read(deliveries <-chan amqp.Delivery, t *tally) bool {
	var acking sync.WaitGroup
	stop := make(chan struct{})
	acking.Go(func() { t.keep(stop) })
	halt := sync.OnceFunc(func() { close(stop); acking.Wait() })
	defer halt()
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return false
			}
			r := decode(&d)
			t.add(r)
			attempt := 1
			if d.Redelivered {
				attempt = in.c.tried.of(r.id)
			}
			_ = in.lane.Add(context.Background(), r.key, int64(r.tag), attempt, r) // nobody revokes it but this goroutine
		case <-in.giveUp.Done():
			if !in.s.alive() {
				return false // nothing can be acknowledged
			}
			in.drain()
			halt()
			_, _ = t.flush(true) // if the channel is gone, they come again
			return true
		}
	}
}

// drain waits for the handlers that run; nothing is started any more.
func (in *intake) drain() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !in.patient {
		ctx, cancel = context.WithTimeout(ctx, in.c.b.cfg.RevokeTimeout)
		defer cancel()
		go func() {
			select {
			case <-in.s.gone: // the queue has moved
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	if err := in.lane.Revoke(ctx); err != nil && in.s.alive() {
		in.c.log.Warn("amqpbus: a queue moves to another member under a handler that still runs, its event will be handled again",
			"queue", in.c.names.queues[in.queue], "waited", in.c.b.cfg.RevokeTimeout)
	}
}
