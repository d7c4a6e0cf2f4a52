package driver

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// prefixParam is the one parameter that every scheme has: what it holds is put
// before the names of topics and groups, so that several environments, or runs
// of a test, can share a server. They never meet if none of their prefixes begins
// with another.
const prefixParam = "prefix"

// cutPrefix takes the parameter out of the query of u, which it leaves alone.
func cutPrefix(u *url.URL) (rest *url.URL, prefix string, err error) {
	if !strings.Contains(u.RawQuery, prefixParam) {
		return u, "", nil
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil || !q.Has(prefixParam) {
		return u, "", nil // the driver will say so, or nothing is to be done
	}
	if prefix = q.Get(prefixParam); len(q[prefixParam]) > 1 || CheckTopic(prefix) != nil {
		return u, "", fmt.Errorf("parameter %s=%q: want one prefix of topic names: letters, digits, '.', '_' or '-'", prefixParam, prefix)
	}
	q.Del(prefixParam)
	without := *u
	without.RawQuery = q.Encode()
	return &without, prefix, nil
}

// prefixed is a broker whose topics and groups have longer names on the inside.
type prefixed struct {
	Broker
	prefix string
}

// prefixedSeeker is prefixed on a Seeker.
type prefixedSeeker struct {
	*prefixed
	seeker Seeker
}

var (
	_ Taker  = (*prefixed)(nil)
	_ Seeker = (*prefixedSeeker)(nil)
)

func withPrefix(b Broker, prefix string) Broker {
	p := &prefixed{b, prefix}
	if seeker, ok := b.(Seeker); ok {
		return &prefixedSeeker{p, seeker}
	}
	return p
}

func (b *prefixed) Publish(topic string, messages ...*message.Message) error {
	if err := CheckTopic(topic); err != nil {
		return err
	}
	return b.Broker.Publish(b.prefix+topic, messages...)
}

func (b *prefixed) Take(topic string, messages ...*message.Message) error {
	taker, ok := b.Broker.(Taker)
	if !ok {
		return b.Publish(topic, messages...)
	}
	if err := CheckTopic(topic); err != nil {
		return err
	}
	return taker.Take(b.prefix+topic, messages...)
}

func (b *prefixedSeeker) Seek(ctx context.Context, topic, group string, to time.Time) error {
	return b.seeker.Seek(ctx, b.prefix+topic, b.prefix+group, to)
}

func (b *prefixed) Subscribe(ctx context.Context, s Subscription) (Consumer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	topic, handle := s.Topic, s.Handle
	s.Topic, s.Group = b.prefix+s.Topic, b.prefix+s.Group
	s.Handle = func(d *Delivery) Result {
		d.Topic = topic
		return handle(d)
	}
	return b.Broker.Subscribe(ctx, s)
}
