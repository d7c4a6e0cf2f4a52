package amqpbus

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// window is how many events of a topic are on their way without a confirm.
const window = 1024

// writer publishes the events of a pipe on one channel.
type writer struct {
	p        *pipe
	s        *session
	ch       *amqp.Channel
	sent     chan sent         // in order
	returns  chan amqp.Return  // room for all that are on their way: its sender must not wait
	broken   chan *amqp.Error  // closed with the channel
	why      *amqp.Error       // what came from it
	stalled  chan struct{}     // closed when confirms are waited for no longer
	homeless map[origin]uint64 // what was returned, and the last event published by then
	lost     []*outgoing       // of the confirmer, until it ends
	keeps    atomic.Bool       // the unclaimed queue exists
	moved    atomic.Int64      // when something was confirmed, in nanoseconds since epoch
	epoch    time.Time

	mu       sync.Mutex
	inFlight int
}

// sent is an event on its way.
type sent struct {
	*outgoing
	confirm *amqp.DeferredConfirmation
}

// origin is what of an event comes back with it.
type origin struct{ exchange, key, id string }

// serve publishes until there has been nothing to for a while, the channel is
// lost, or the topic turns out to be unusable, which is an error of all events
// that wait. It was healthy if anything was published.
func (p *pipe) serve(s *session) (idle, healthy bool, err error) {
	if err := p.prepare(s); err != nil {
		if driver.IsPermanent(err) {
			p.failAll(err)
			return p.idle(), true, nil
		}
		return false, false, err
	}
	ch, err := s.conn.Channel()
	if err != nil {
		return false, false, err
	}
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return false, false, err
	}
	p.noteStuck(nil)
	w := &writer{
		p: p, s: s, ch: ch, epoch: time.Now(), stalled: make(chan struct{}), sent: make(chan sent, window), homeless: map[origin]uint64{},
		returns: ch.NotifyReturn(make(chan amqp.Return, 2*window)),
		broken:  ch.NotifyClose(make(chan *amqp.Error, 1)),
	}
	var confirming sync.WaitGroup
	confirming.Go(w.confirm)
	idle, err = w.write()
	if errors.Is(err, errStalled) {
		close(w.stalled)
		p.done.Go(func() { _ = ch.Close() }) // the broker may answer late
	} else {
		_ = ch.Close()
	}
	close(w.sent)
	confirming.Wait()
	if w.why == nil && !errors.Is(err, errStalled) {
		w.why = <-w.broken
	}
	w.recover(w.why)
	healthy = w.ch.GetNextPublishSeqNo() > 1 && len(w.lost) == 0
	if healthy {
		p.patience = minPatience
	}
	return idle && p.idle(), healthy, err
}

// recover gives back what was lost with the channel. If the broker closed it
// because of an event, that is found by publishing them one at a time.
func (w *writer) recover(why *amqp.Error) {
	switch {
	case why == nil || !why.Server || !w.s.alive() || why.Code == amqp.NotFound:
	case len(w.lost) == 1:
		w.p.settle(w.lost[0], explainRefusal(why))
		w.lost = nil
	default:
		w.p.beCareful(len(w.lost))
	}
	w.p.giveBack(w.lost)
}

// prepare makes sure that the topic exists.
func (p *pipe) prepare(s *session) error {
	if !p.b.cfg.NoProvision {
		return s.do(func(ch *amqp.Channel) error { return declareTopic(ch, p.topic) })
	}
	ok, err := s.hasExchange(p.topic)
	if err == nil && !ok {
		return notProvisioned("topic", p.topic, fmt.Sprintf("ctx, %q", p.topic))
	}
	return explainDeclare(fmt.Sprintf("exchange %q", p.topic), err)
}

// write publishes until the channel is lost or nothing came for a while.
func (w *writer) write() (idle bool, err error) {
	for {
		o := w.next()
		if o == nil {
			if idle, err := w.rest(); idle || err != nil {
				return idle, err
			}
			continue
		}
		if err := w.publish(o); err != nil {
			return false, err
		}
	}
}

func (w *writer) next() *outgoing {
	if w.s.blocked.Load() != nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inFlight >= w.p.window() {
		return nil
	}
	o := w.p.take()
	if o != nil {
		if w.inFlight++; w.inFlight == 1 {
			w.note()
		}
	}
	return o
}

// blockedPoll is how often a connection that the broker has blocked is looked at.
const blockedPoll = 20 * time.Millisecond

// rest waits for something to do.
func (w *writer) rest() (idle bool, err error) {
	patience := w.stallsAfter()
	if patience <= 0 {
		w.p.patience = min(2*w.p.patience, maxPatience)
		return false, errStalled
	}
	blocked := w.s.blocked.Load() != nil
	if blocked {
		patience = blockedPoll
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.p.wake:
	case e := <-w.broken:
		w.why = e
		return false, lossOf(e)
	case <-w.p.life.Done():
		return false, driver.ErrClosed
	case <-timer.C:
		w.mu.Lock()
		defer w.mu.Unlock()
		return !blocked && w.inFlight == 0, nil
	}
	return false, nil
}

const minPatience, maxPatience = 10 * time.Second, 5 * time.Minute

var errStalled = errors.New("the broker confirms nothing")

// stallsAfter returns how long to wait for a sign of life: for the next confirm
// if any is due. If it is not positive, the broker is stuck.
func (w *writer) stallsAfter() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inFlight == 0 || w.s.blocked.Load() != nil {
		w.note()
		return idleAfter
	}
	return w.p.patience - (time.Since(w.epoch) - time.Duration(w.moved.Load()))
}

// note takes down that the broker is well.
func (w *writer) note() { w.moved.Store(int64(time.Since(w.epoch))) }

func lossOf(e *amqp.Error) error {
	if e == nil {
		return errors.New("the channel was closed")
	}
	return e
}

// publish puts o on its way. After an error the channel is of no use.
func (w *writer) publish(o *outgoing) error {
	exchange, key := w.p.topic, o.slot
	if o.unclaimed {
		if err := w.keepUnclaimed(); err != nil {
			w.settle(o, err)
			return nil
		}
		exchange, key = "", unclaimed(w.p.topic)
	}
	event := o.event
	if o.unclaimed {
		event.Expiration = w.p.b.cfg.expiration()
	}
	confirm, err := w.ch.PublishWithDeferredConfirm(exchange, key, true, false, event)
	if err != nil {
		w.p.giveBack([]*outgoing{o})
		return err
	}
	w.sent <- sent{o, confirm}
	return nil
}

// keepUnclaimed makes sure that the queue for events without a group exists.
func (w *writer) keepUnclaimed() error {
	if w.keeps.Load() {
		return nil
	}
	b, topic := w.p.b, w.p.topic
	if b.cfg.NoProvision {
		_, ok, err := w.s.hasQueue(unclaimed(topic))
		if err == nil && !ok {
			err = fmt.Errorf("nobody would get the event: the topic has no group, and no queue %q to keep it for the first; create either with Broker.Provision", unclaimed(topic))
		}
		w.keeps.Store(err == nil)
		return err
	}
	err := w.s.declareUnclaimed(topic, b.cfg.QueueType)
	w.keeps.Store(err == nil)
	return err
}

// settle ends the way of o.
func (w *writer) settle(o *outgoing, err error) {
	w.p.settle(o, err)
	w.left(nil)
}

// left makes room for another event, or for o itself on another way.
func (w *writer) left(o *outgoing) {
	w.note()
	w.mu.Lock()
	w.inFlight--
	w.mu.Unlock()
	if o != nil {
		w.p.takeBack(o)
	}
	if !w.p.idle() {
		poke(w.p.wake)
	}
}
