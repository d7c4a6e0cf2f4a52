package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// offsets are positions by partition of one topic.
type offsets map[int32]int64

// createGroup stores where the group begins, unless it has stored anything for
// the topic before.
func (b *Broker) createGroup(ctx context.Context, s driver.Subscription) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return b.persistBounded(ctx, func(ctx context.Context) error { return b.placeGroup(ctx, s) })
}

func (b *Broker) placeGroup(ctx context.Context, s driver.Subscription) error {
	if err := b.provide(ctx, s.Topic); err != nil {
		return err
	}
	if exists, err := b.groupExists(ctx, s.Topic, s.Group); err != nil || exists {
		return err
	}
	// Listed before looking again: should another member create the group in
	// between, this one's idea of newest is not newer.
	begin, err := b.list(ctx, s.Topic, s.Start)
	if err != nil {
		return err
	}
	if exists, err := b.groupExists(ctx, s.Topic, s.Group); err != nil || exists {
		return err
	}
	err = b.commitOutside(ctx, s.Topic, s.Group, begin)
	if isMembership(err) {
		err = b.commitInside(ctx, s.Topic, s.Group, begin)
	}
	if err != nil {
		return fmt.Errorf("store where the group begins: %w", err)
	}
	return nil
}

// isMembership reports whether a commit was refused because the group has members
// and the one who asks is none.
func isMembership(err error) bool {
	return is(err, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.StaleMemberEpoch)
}

// groupExists reports whether the group has stored a position in the topic. If it
// has for some partitions only, the others are newer and are read from the start.
func (b *Broker) groupExists(ctx context.Context, topic, group string) (bool, error) {
	stored, err := b.admin().FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return false, fmt.Errorf("look up the group: %w", err)
	}
	for _, o := range stored[topic] {
		if o.Err != nil {
			return false, fmt.Errorf("look up the group: %w", o.Err)
		}
		if o.At >= 0 {
			return true, nil
		}
	}
	return false, nil
}

// list returns the oldest or newest position of each partition.
func (b *Broker) list(ctx context.Context, topic string, start driver.Start) (offsets, error) {
	list := b.admin().ListStartOffsets
	if start == driver.StartNewest {
		list = b.admin().ListEndOffsets
	}
	listed, err := list(ctx, topic)
	return b.complete(ctx, topic, listed, err)
}

// complete checks that every partition was listed: the client's own list of them
// may be older than the topic.
func (b *Broker) complete(ctx context.Context, topic string, listed kadm.ListedOffsets, err error) (offsets, error) {
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	numbers, err := b.partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	all := offsets{}
	for _, n := range numbers {
		o, ok := listed.Lookup(topic, n)
		if !ok {
			return nil, fmt.Errorf("list offsets: partition %d is missing", n)
		}
		all[n] = o.Offset
	}
	return all, nil
}

// commitOutside stores positions of a group that has no members.
func (b *Broker) commitOutside(ctx context.Context, topic, group string, at offsets) error {
	all := kadm.Offsets{}
	for n, offset := range at {
		all.AddOffset(topic, n, offset, -1)
	}
	return b.admin().CommitAllOffsets(ctx, group, all)
}

// commitInside stores positions of a group that has members of other topics, from
// which Kafka takes them from members only: it joins the group for the topic,
// commits and leaves.
func (b *Broker) commitInside(ctx context.Context, topic, group string, at offsets) error {
	joined := make(chan struct{}, 1)
	note := func(context.Context, *kgo.Client, map[string][]int32) {
		select {
		case joined <- struct{}{}:
		default:
		}
	}
	cl, err := b.conn.client(append(b.memberOptions(topic, group), kgo.OnPartitionsAssigned(note), kgo.WithContext(ctx))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	cl.PauseFetchTopics(topic)
	failed := make(chan error, 1)
	watch, stop := context.WithCancel(ctx)
	watching := make(chan struct{})
	defer func() { stop(); <-watching }()
	go func() {
		defer close(watching)
		failed <- refusal(watch, cl)
	}()
	select {
	case <-joined:
	case err := <-failed:
		return cause(ctx, err)
	}
	if exists, err := b.groupExists(ctx, topic, group); err != nil || exists {
		return err
	}
	return commit(ctx, cl, topic, at)
}

// refusal returns what keeps cl out of its group for good, or the end of ctx.
func refusal(ctx context.Context, cl *kgo.Client) error {
	for ctx.Err() == nil {
		err := cl.PollRecords(ctx, 1).Err()
		if is(err, kerr.InconsistentGroupProtocol, kerr.GroupAuthorizationFailed, kerr.InvalidSessionTimeout, kerr.GroupMaxSizeReached) {
			return err
		}
	}
	return ctx.Err()
}

// commit stores positions as a member.
func commit(ctx context.Context, cl *kgo.Client, topic string, at offsets) error {
	byPartition := make(map[int32]kgo.EpochOffset, len(at))
	for n, offset := range at {
		byPartition[n] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	var failed error
	cl.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{topic: byPartition}, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
		failed = err
		if err != nil {
			return
		}
		for _, t := range answer.Topics {
			for _, p := range t.Partitions {
				failed = errors.Join(failed, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	return failed
}

// memberOptions are those of every member of a group.
func (b *Broker) memberOptions(topic, group string) []kgo.Opt {
	partitionBytes := int32(max(1<<20, b.cfg.MaxPayload+headroom))
	return []kgo.Opt{
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(b.cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(heartbeat, b.cfg.SessionTimeout/3)),
		kgo.RebalanceTimeout(b.cfg.RevokeTimeout + rebalanceMargin),
		kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(max(fetchBytes, partitionBytes)),
		kgo.FetchMaxPartitionBytes(partitionBytes),
		kgo.FetchMaxWait(time.Second),
		kgo.AlwaysRetryEOF(), // Open has shown that it is no wrong configuration
	}
}

const (
	// heartbeat is how often members hear of each other.
	heartbeat = 500 * time.Millisecond
	// rebalanceMargin is what a rebalance may take beyond waiting for handlers.
	rebalanceMargin = 30 * time.Second
	// fetchBytes is the most that one answer of a broker holds.
	fetchBytes = 8 << 20
)
