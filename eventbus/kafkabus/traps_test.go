package kafkabus

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// committed returns the positions that the group has stored, by partition.
func committed(t testing.TB, b *Broker, topic, group string) map[int32]int64 {
	t.Helper()
	stored, err := b.admin().FetchOffsets(context.Background(), group)
	require.NoError(t, err)
	at := map[int32]int64{}
	for n, o := range stored[topic] {
		at[n] = o.At
	}
	return at
}

func sum(at map[int32]int64) (n int64) {
	for _, offset := range at {
		n += offset
	}
	return n
}

// keysFor returns a key for each partition of a topic with n.
func keysFor(n int) []string {
	keys := make([]string, n)
	p := Config{}.withDefaults()
	for i, found := 0, 0; found < n; i++ {
		key := fmt.Sprint("key-", i)
		if at := partitionOf(p, key, n); keys[at] == "" {
			keys[at] = key
			found++
		}
	}
	return keys
}

func TestSlowHandlerIsFencedWhenItsPartitionMoves(t *testing.T) {
	k := cluster(t)
	c := Config{Partitions: 2, RevokeTimeout: 50 * time.Millisecond}
	old, young := dial(t, k, c), dial(t, k, c)
	started, releaseOld := make(chan *driver.Delivery, 4), make(chan struct{})
	start(t, old, driver.Subscription{Concurrency: 2, Handle: func(d *driver.Delivery) driver.Result {
		started <- d
		<-releaseOld
		return driver.Result{}
	}})
	defer sync.OnceFunc(func() { close(releaseOld) })()
	for _, key := range keysFor(2) {
		require.NoError(t, old.Publish("t", msg(key, key)))
	}
	receive(t, started)
	receive(t, started)

	again, releaseYoung := make(chan *driver.Delivery, 4), make(chan struct{})
	start(t, young, driver.Subscription{Concurrency: 2, Handle: func(d *driver.Delivery) driver.Result {
		again <- d
		<-releaseYoung
		return driver.Result{}
	}})
	moved := receive(t, again).Position.Partition
	releaseOld <- struct{}{}
	releaseOld <- struct{}{}
	eventually(t, "the partition that stayed to be committed", func() bool { return committed(t, old, "t", "g")[1-moved] == 1 })
	require.Zero(t, committed(t, old, "t", "g")[moved], "the old member has no say in the partition any more")
	close(releaseYoung)
	eventually(t, "the new owner to commit", func() bool { return committed(t, old, "t", "g")[moved] == 1 })
}

func TestOffsetsAreNeverCommittedForEventsNoHandlerRan(t *testing.T) {
	b := dial(t, cluster(t), Config{})
	for i := range 100 {
		require.NoError(t, b.Publish("t", msg(fmt.Sprint("k", i), i)))
	}
	var handled atomic.Int64
	tenth := make(chan struct{})
	m := start(t, b, driver.Subscription{Concurrency: 3, Handle: func(*driver.Delivery) driver.Result {
		if handled.Add(1) == 10 {
			close(tenth)
		}
		return driver.Result{}
	}})
	receive(t, tenth)
	m.leave()
	require.LessOrEqual(t, sum(committed(t, b, "t", "g")), handled.Load())
	seen := make(chan *driver.Delivery, 100)
	start(t, b, driver.Subscription{Handle: into(seen)})
	for range 100 - handled.Load() {
		receive(t, seen)
	}
}

func TestNewGroupsStartAtTheOldest(t *testing.T) {
	b := dial(t, cluster(t), Config{})
	require.NoError(t, b.Publish("t", msg("k", "before")))
	got := make(chan *driver.Delivery, 1)
	start(t, b, driver.Subscription{Handle: into(got)})
	require.Equal(t, "before", text(receive(t, got)))
}

// Kafka takes no commit from outside for a group that has members, of whatever
// topic.
func TestGroupThatRunsAlreadyStartsAnotherTopicAtTheNewest(t *testing.T) {
	k := cluster(t)
	b := dial(t, k, Config{})
	got := make(chan *driver.Delivery, 10)
	start(t, b, driver.Subscription{Topic: "a", Handle: into(got)})
	require.NoError(t, b.Publish("a", msg("k", "running")))
	receive(t, got)
	require.NoError(t, b.Publish("b", msg("k", "before")))
	sub := driver.Subscription{Topic: "b", Group: "g", Concurrency: 1, Start: driver.StartNewest, Handle: into(got)}
	began := time.Now()
	_, err := dial(t, k, Config{}).Subscribe(t.Context(), sub)
	require.NoError(t, err)
	t.Logf("joining and leaving took %v", time.Since(began))
	require.Len(t, committed(t, b, "b", "g"), 4)
	require.NoError(t, b.Publish("b", msg("k", "after")))
	start(t, b, sub)
	require.Equal(t, "after", text(receive(t, got)))
	err = b.Seek(t.Context(), "c", "g", time.Time{})
	require.ErrorIs(t, err, driver.ErrBusy)
	require.ErrorContains(t, err, "they are of other topics, but Kafka moves only groups without any; stop them first")
}

// The buffer fills with the events of one key while its first is handled.
func TestSlowKeyNeverHoldsUpOthersThoughItFillsTheBuffer(t *testing.T) {
	b := dial(t, cluster(t), Config{Buffer: 16})
	const slow, others = 100, 40
	for i := range slow {
		require.NoError(t, b.Publish("t", msg("slow", i)))
	}
	keys := keysFor(4)
	for i := range others {
		require.NoError(t, b.Publish("t", msg(keys[i%4], i)))
	}
	slowPartition := partitionOf(Config{}.withDefaults(), "slow", 4)
	release := make(chan struct{})
	got := make(chan *driver.Delivery, slow+others)
	start(t, b, driver.Subscription{Concurrency: 2, Handle: func(d *driver.Delivery) driver.Result {
		if d.Key == "slow" {
			<-release
		}
		got <- d
		return driver.Result{}
	}})
	for range others / 4 * 3 { // the others of its partition are behind it
		require.NotEqual(t, slowPartition, int(receive(t, got).Position.Partition))
	}
	close(release)
	next := 0
	for range slow + others/4 {
		if d := receive(t, got); d.Key == "slow" {
			require.Equal(t, fmt.Sprint(next), text(d))
			next++
		}
	}
	require.Equal(t, slow, next)
}

// A member that the group has given up joins again, and does not run an event
// beside its own earlier run of it.
func TestMemberThatWasLostJoinsAgain(t *testing.T) {
	k := cluster(t)
	b := dial(t, k, Config{Partitions: 1, SessionTimeout: time.Second})
	started, release := make(chan struct{}, 10), make(chan struct{})
	var running, most, calls atomic.Int32
	start(t, b, driver.Subscription{Concurrency: 4, Handle: func(*driver.Delivery) driver.Result {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		started <- struct{}{}
		if calls.Add(1) == 1 {
			<-release
		}
		return driver.Result{}
	}})
	require.NoError(t, b.Publish("t", msg("k", "x")))
	receive(t, started)
	thrown := make(chan struct{})
	k.ControlKey(int16(kmsg.Heartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
		answer := r.ResponseKind().(*kmsg.HeartbeatResponse)
		answer.ErrorCode = kerr.UnknownMemberID.Code
		close(thrown)
		return answer, nil, true
	})
	receive(t, thrown)
	close(release)
	require.NoError(t, b.Publish("t", msg("k", "y")))
	eventually(t, "the events to be committed", func() bool { return sum(committed(t, b, "t", "g")) == 2 })
	require.EqualValues(t, 1, most.Load())
}

// Whatever the brokers hold against an idempotent producer, the next Publish is
// not lost to it.
func TestProducerRecoversFromRefusedSequences(t *testing.T) {
	for _, code := range []*kerr.Error{kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.UnknownProducerID, kerr.InvalidProducerIDMapping} {
		t.Run(code.Message, func(t *testing.T) {
			k := cluster(t)
			b := dial(t, k, Config{Partitions: 1})
			require.NoError(t, b.Publish("t", msg("k", 1)))
			refuseOnce(k, code)
			require.NoError(t, b.Publish("t", msg("k", 2)))
			require.NoError(t, b.Publish("t", msg("k", 3)))
			got := make(chan *driver.Delivery, 10)
			start(t, b, driver.Subscription{Handle: into(got)})
			for _, want := range []string{"1", "2", "3"} {
				require.Equal(t, want, text(receive(t, got)))
			}
		})
	}
}

func refuseOnce(k *kfake.Cluster, code *kerr.Error) {
	k.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		answer := r.ResponseKind().(*kmsg.ProduceResponse)
		for _, t := range r.(*kmsg.ProduceRequest).Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, code.Code
				topic.Partitions = append(topic.Partitions, partition)
			}
			answer.Topics = append(answer.Topics, topic)
		}
		return answer, nil, true
	})
}

// The client keeps a refused producer id for ever; the Broker does not.
func TestPublishGoesOnOnceTheRightIsGranted(t *testing.T) {
	k := cluster(t)
	b := dial(t, k, Config{})
	k.ControlKey(int16(kmsg.InitProducerID), func(r kmsg.Request) (kmsg.Response, error, bool) {
		answer := r.ResponseKind().(*kmsg.InitProducerIDResponse)
		answer.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return answer, nil, true
	})
	err := b.Publish("t", msg("k", 1))
	require.ErrorContains(t, err, "the user lacks a right on the cluster; grant it IDEMPOTENT_WRITE, and CREATE to have topics created: ")
	require.NoError(t, b.Publish("t", msg("k", 2)))
}

func TestTopicThatWasDeletedIsCreatedAgain(t *testing.T) {
	k := cluster(t)
	b := dial(t, k, Config{})
	got := make(chan *driver.Delivery, 10)
	start(t, b, driver.Subscription{Handle: into(got)})
	require.NoError(t, b.Publish("t", msg("k", 1)))
	require.Equal(t, "1", text(receive(t, got)))
	eventually(t, "the event to be committed", func() bool { return sum(committed(t, b, "t", "g")) == 1 })
	require.NoError(t, k.DeleteTopic("t"))
	require.NoError(t, b.Publish("t", msg("k", 2)))
	require.NoError(t, b.Publish("t", msg("k", 3)))
	require.Equal(t, "2", text(receive(t, got)))
	require.Equal(t, "3", text(receive(t, got)))
}

func TestDelayedRedeliveryLetsTheKeyPassAndHoldsTheOffset(t *testing.T) {
	b := dial(t, cluster(t), Config{Partitions: 1})
	got := make(chan *driver.Delivery, 10)
	m := start(t, b, driver.Subscription{Handle: func(d *driver.Delivery) driver.Result {
		got <- d
		return driver.Result{Redeliver: text(d) == "0", Delay: time.Hour}
	}})
	for i := range 5 {
		require.NoError(t, b.Publish("t", msg("k", i)))
	}
	for range 5 {
		receive(t, got)
	}
	m.leave()
	require.Zero(t, sum(committed(t, b, "t", "g")))
	start(t, b, driver.Subscription{Handle: into(got)})
	require.Equal(t, "0", text(receive(t, got)), "a delay does not survive the member")
}
