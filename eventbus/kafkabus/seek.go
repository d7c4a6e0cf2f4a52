package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Seek implements driver.Seeker. Kafka goes by the time that the publisher has
// put on the event, in milliseconds. It can't move a group that has members of
// another topic either: stop those too.
func (b *Broker) Seek(ctx context.Context, topic, group string, to time.Time) error {
	if err := errors.Join(driver.CheckTopic(topic), driver.CheckGroup(group)); err != nil {
		return err
	}
	if err := b.enter(); err != nil {
		return b.errorf("seek", topic, group, err)
	}
	defer b.calls.Done()
	if err := b.persistBounded(ctx, func(ctx context.Context) error { return b.seek(ctx, topic, group, to) }); err != nil {
		return b.errorf("seek", topic, group, b.translate(ctx, err))
	}
	return nil
}

func (b *Broker) seek(ctx context.Context, topic, group string, to time.Time) error {
	if err := b.provide(ctx, topic); err != nil {
		return err
	}
	if err := b.checkIdle(ctx, topic, group); err != nil {
		return err
	}
	var at offsets
	var err error
	if to.IsZero() {
		at, err = b.list(ctx, topic, driver.StartOldest)
	} else {
		var listed kadm.ListedOffsets
		listed, err = b.admin().ListOffsetsAfterMilli(ctx, to.UnixMilli(), topic)
		at, err = b.complete(ctx, topic, listed, err)
	}
	if err != nil {
		return err
	}
	err = b.commitOutside(ctx, topic, group, at)
	if isMembership(err) { // one has joined meanwhile
		return fmt.Errorf("%w: %w", driver.ErrBusy, err)
	}
	return err
}

// checkIdle fails if the group has members.
func (b *Broker) checkIdle(ctx context.Context, topic, group string) error {
	described, err := b.admin().DescribeGroups(ctx, group)
	if err != nil {
		return err
	}
	members := described[group].Members
	if len(members) == 0 {
		return nil
	}
	for _, m := range members {
		if join, ok := m.Join.AsConsumer(); ok && slices.Contains(join.Topics, topic) {
			return driver.ErrBusy
		}
	}
	return fmt.Errorf("%w: they are of other topics, but Kafka moves only groups without any; stop them first", driver.ErrBusy)
}
