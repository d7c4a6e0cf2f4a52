package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// topic is what is known of one that exists.
type topic struct {
	maxBytes int // of a batch of records
}

// ready is provide that does not give up.
func (b *Broker) ready(ctx context.Context, name string) error {
	if b.knows(name) {
		return nil
	}
	return b.persist(ctx, func(ctx context.Context) error { return b.provide(ctx, name) })
}

func (b *Broker) knows(name string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	_, known := b.topics[name]
	return known
}

// provide makes sure, once, that a topic exists.
func (b *Broker) provide(ctx context.Context, name string) error {
	if b.knows(name) {
		return nil
	}
	select {
	case b.creating <- struct{}{}:
		defer func() { <-b.creating }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if b.knows(name) { // by now
		return nil
	}
	t, err := b.find(ctx, name)
	if err != nil {
		return cause(ctx, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.topics[name] = t
	return nil
}

// forget has the next provide look again.
func (b *Broker) forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.topics, name)
}

// errNotYet says that a topic exists and can't be used for the moment.
var errNotYet = errors.New("the topic has partitions without a leader")

func (b *Broker) find(ctx context.Context, name string) (topic, error) {
	_, err := b.partitions(ctx, name)
	switch {
	case err == nil:
		return b.limits(ctx, name), nil
	case errors.Is(err, errNotYet):
		return b.limits(ctx, name), b.awaitLeaders(ctx, name)
	case !errors.Is(err, kerr.UnknownTopicOrPartition):
		return topic{}, err
	case b.cfg.NoProvision:
		return topic{}, driver.Permanent(fmt.Errorf("topic %q: %w; create it, for example with kafka-topics.sh --create --topic %s, or drop provision=false", name, driver.ErrNotProvisioned, name))
	}
	if err := b.create(ctx, name); err != nil {
		return topic{}, err
	}
	return b.limits(ctx, name), b.awaitLeaders(ctx, name)
}

func (b *Broker) create(ctx context.Context, name string) error {
	replication := int16(-1)
	if b.cfg.Replication > 0 {
		replication = int16(b.cfg.Replication)
	}
	settings := map[string]*string{"max.message.bytes": kadm.StringPtr(strconv.Itoa(max(b.cfg.MaxPayload+headroom, kafkaMaxMessage)))}
	if b.cfg.MinInsync > 0 {
		settings["min.insync.replicas"] = kadm.StringPtr(strconv.Itoa(b.cfg.MinInsync))
	}
	if b.cfg.Retention > 0 {
		settings["retention.ms"] = kadm.StringPtr(strconv.FormatInt(b.cfg.Retention.Milliseconds(), 10))
	}
	answer, err := b.admin().CreateTopic(ctx, int32(b.cfg.Partitions), replication, settings, name)
	if err != nil && !is(err, kerr.TopicAlreadyExists) {
		if answer.ErrMessage != "" {
			err = fmt.Errorf("%w (%s)", err, answer.ErrMessage)
		}
		return fmt.Errorf("create topic %q: %w", name, err)
	}
	return nil
}

// awaitLeaders returns when every partition of a new topic can be used: a broker
// may hear of it a moment later than the controller.
func (b *Broker) awaitLeaders(ctx context.Context, name string) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		_, err := b.partitions(ctx, name)
		if err == nil || !is(err, kerr.UnknownTopicOrPartition, errNotYet) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// partitions asks for the partitions of a topic. The client's own metadata may be
// older than the topic.
func (b *Broker) partitions(ctx context.Context, name string) ([]int32, error) {
	request := kmsg.NewPtrMetadataRequest()
	wanted := kmsg.NewMetadataRequestTopic()
	wanted.Topic = &name
	request.Topics = append(request.Topics, wanted)
	answer, err := request.RequestWith(ctx, b.current())
	if err != nil {
		return nil, fmt.Errorf("look up topic %q: %w", name, err)
	}
	if len(answer.Topics) != 1 {
		return nil, fmt.Errorf("look up topic %q: %w", name, kerr.UnknownTopicOrPartition)
	}
	t := &answer.Topics[0]
	if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
		return nil, fmt.Errorf("look up topic %q: %w", name, err)
	}
	numbers := make([]int32, 0, len(t.Partitions))
	for _, p := range t.Partitions {
		if p.Leader < 0 {
			return nil, fmt.Errorf("look up topic %q: %w", name, errNotYet)
		}
		numbers = append(numbers, p.Partition)
	}
	return numbers, nil
}

// limits asks for the largest batch that a topic takes, and guesses where the
// user may not ask. A wrong guess makes the broker refuse what is larger.
func (b *Broker) limits(ctx context.Context, name string) topic {
	guess := topic{maxBytes: kafkaMaxMessage}
	if b.cfg.MaxPayload > kafkaMaxMessage-headroom {
		guess.maxBytes = b.cfg.MaxPayload + headroom
	}
	described, err := b.admin().DescribeTopicConfigs(ctx, name)
	if err != nil {
		return guess
	}
	settings, err := described.On(name, nil)
	if err != nil || settings.Err != nil {
		return guess
	}
	for _, s := range settings.Configs {
		if n, err := strconv.Atoi(s.MaybeValue()); s.Key == "max.message.bytes" && err == nil && n > 0 {
			return topic{maxBytes: n}
		}
	}
	return guess
}

// batchBytes is asked by the client for each topic it publishes to, and for none
// to check its configuration.
func (b *Broker) batchBytes(name string) int32 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	limit := kafkaMaxMessage
	if t, known := b.topics[name]; known {
		limit = t.maxBytes
	}
	return max(b.cfg.batchBytes(limit), 1024)
}
