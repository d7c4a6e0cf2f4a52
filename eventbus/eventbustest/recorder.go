package eventbustest

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// recorder tells the harness what passes through a broker.
type recorder struct {
	driver.Broker
	h *Harness
}

// Publish records before it publishes, so that a handler never overtakes the
// record of its event; what is refused is taken back.
func (r *recorder) Publish(topic string, messages ...*message.Message) error {
	copies := make([]*message.Message, len(messages))
	for i, m := range messages {
		copies[i] = m.Copy()
	}
	r.h.recordPublished(topic, copies)
	err := r.Broker.Publish(topic, messages...)
	if err != nil {
		r.h.forgetPublished(topic, copies)
	}
	return err
}

func (r *recorder) Subscribe(ctx context.Context, s driver.Subscription) (driver.Consumer, error) {
	handle := s.Handle
	if handle != nil {
		s.Handle = func(d *driver.Delivery) driver.Result {
			id := d.Message.UUID
			res := handle(d)
			if !res.Redeliver {
				r.h.recordConsumed(consumption{s.Topic, s.Group, id})
			}
			return res
		}
	}
	c, err := r.Broker.Subscribe(ctx, s)
	if err == nil {
		r.h.recordGroup(s)
	}
	return c, err
}

func (h *Harness) recordPublished(topic string, messages []*message.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range messages {
		h.published, h.topics = append(h.published, m), append(h.topics, topic)
		for group := range h.groups[topic] {
			h.pending[consumption{topic, group, m.UUID}]++
		}
	}
	h.step()
}

func (h *Harness) forgetPublished(topic string, messages []*message.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range messages {
		for i := range h.published {
			if h.published[i] == m {
				h.published = append(h.published[:i], h.published[i+1:]...)
				h.topics = append(h.topics[:i], h.topics[i+1:]...)
				break
			}
		}
		for group := range h.groups[topic] {
			h.settle(consumption{topic, group, m.UUID})
		}
	}
	h.step()
}

func (h *Harness) recordConsumed(c consumption) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.consumed[c]++
	h.settle(c)
	h.step()
}

// settle takes one outstanding consumption off. h.mu is held.
func (h *Harness) settle(c consumption) {
	if h.pending[c]--; h.pending[c] <= 0 {
		delete(h.pending, c)
	}
}

// recordGroup notes a group; a new one has what was published before it
// outstanding, if the memory broker will deliver that.
func (h *Harness) recordGroup(s driver.Subscription) {
	topic, group := s.Topic, s.Group
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.groups[topic] == nil {
		h.groups[topic] = map[string]bool{}
	}
	if h.groups[topic][group] {
		return
	}
	h.groups[topic][group] = true
	if s.Start == driver.StartNewest {
		return
	}
	for i, m := range h.published {
		if h.topics[i] == topic {
			h.pending[consumption{topic, group, m.UUID}]++
		}
	}
	h.step()
}
