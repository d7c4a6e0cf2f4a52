package outbox

import "github.com/ThreeDotsLabs/watermill/message"

// broker is a publisher that the relay publishes to, and how it is doing.
type broker struct {
	to     message.Publisher
	health health
}

// brokerOf returns where events of a topic go.
func (t *term) brokerOf(topic string) *broker {
	if b := t.routes[topic]; b != nil {
		return b
	}
	return t.broker
}

// down reports whether no broker takes anything.
func (t *term) down() bool {
	for _, b := range t.routes {
		if !b.health.down() {
			return false
		}
	}
	return t.broker.health.down()
}
