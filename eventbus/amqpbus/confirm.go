package amqpbus

import amqp "github.com/rabbitmq/amqp091-go"

// confirm waits for the confirms of what was sent, in order. Once the channel is
// closed it keeps what was not confirmed.
func (w *writer) confirm() {
	for x := range w.sent {
		late := false
		select {
		case <-x.confirm.Done():
		case <-w.stalled:
			late = !x.confirm.Acked()
		}
		acked := x.confirm.Acked()
		w.takeReturns()
		switch returned := w.wasReturned(x); {
		case late, !acked && w.ch.IsClosed():
			w.lost = append(w.lost, x.outgoing)
		case !acked:
			w.settle(x.outgoing, errRefused)
		case returned && x.unclaimed:
			w.keeps.Store(false)
			w.left(x.outgoing)
		case returned:
			x.unclaimed = true
			w.left(x.outgoing)
		default:
			w.settle(x.outgoing, nil)
		}
	}
}

// takeReturns notes what came back. RabbitMQ sends an event back before it
// confirms it, so all that is confirmed by now and was returned is here.
func (w *writer) takeReturns() {
	for {
		select {
		case r, ok := <-w.returns:
			if !ok {
				w.returns = nil
				continue
			}
			w.homeless[origin{r.Exchange, r.RoutingKey, r.MessageId}] = w.ch.GetNextPublishSeqNo() - 1
		default:
			return
		}
	}
}

// wasReturned reports whether x, or another event with the same id that was on
// its way at the same time, was returned: an event may be kept twice, but none
// is lost.
func (w *writer) wasReturned(x sent) bool {
	if len(w.homeless) == 0 {
		return false
	}
	last, ok := w.homeless[w.originOf(x)]
	if len(w.homeless) > 2*window {
		w.forgetReturns(x.confirm)
	}
	return ok && x.confirm.DeliveryTag <= last
}

func (w *writer) forgetReturns(confirmed *amqp.DeferredConfirmation) {
	for o, last := range w.homeless {
		if last < confirmed.DeliveryTag {
			delete(w.homeless, o)
		}
	}
}

func (w *writer) originOf(x sent) origin {
	if x.unclaimed {
		return origin{"", unclaimed(w.p.topic), x.event.MessageId}
	}
	return origin{w.p.topic, x.slot, x.event.MessageId}
}
