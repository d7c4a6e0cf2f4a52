package eventbustest

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// namespace keeps the names of one row apart from those of all others, so that
// rows can share a server.
type namespace struct {
	prefix string

	mu     sync.Mutex
	topics map[string][]string // and their groups
}

func newNamespace() *namespace {
	return &namespace{prefix: strings.ToLower(rand.Text()[:10]) + ".", topics: map[string][]string{}}
}

// name leaves invalid names as they are: they are there to be refused.
func (n *namespace) name(name string) string {
	if driver.CheckTopic(name) != nil {
		return name
	}
	return n.prefix + name
}

func (n *namespace) note(topic, group string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	groups := n.topics[topic]
	if group != "" && !slices.Contains(groups, group) {
		groups = append(groups, group)
	}
	n.topics[topic] = groups
}

// within is a broker whose topics and groups are in a namespace.
type within struct {
	driver.Broker
	*namespace
}

func (b *within) Publish(topic string, messages ...*message.Message) error {
	b.note(b.name(topic), "")
	return b.Broker.Publish(b.name(topic), messages...)
}

func (b *within) Subscribe(ctx context.Context, s driver.Subscription) (driver.Consumer, error) {
	plain := s.Topic
	s.Topic, s.Group = b.name(s.Topic), b.name(s.Group)
	b.note(s.Topic, s.Group)
	if next := s.Handle; next != nil {
		s.Handle = func(d *driver.Delivery) driver.Result {
			if d.Topic != s.Topic {
				d.Topic = fmt.Sprintf("%s (want %s)", d.Topic, s.Topic)
			} else {
				d.Topic = plain
			}
			return next(d)
		}
	}
	return b.Broker.Subscribe(ctx, s)
}

// Seek of a broker that is a driver.Seeker.
func (b *within) Seek(ctx context.Context, topic, group string, to time.Time) error {
	return b.Broker.(driver.Seeker).Seek(ctx, b.name(topic), b.name(group), to)
}
