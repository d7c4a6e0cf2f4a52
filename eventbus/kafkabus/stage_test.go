package kafkabus

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// staged is a stage with partitions whose records handle finishes, or keeps.
func staged(t *testing.T, limit int64, partitions int, handle func(*dispatch.Item[record])) (*stage, []*partition) {
	s := newStage(limit, func() bool { return true })
	d := dispatch.New[record](dispatch.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	running.Go(func() { s.feed(ctx) })
	running.Go(func() { d.Work(ctx, 4, handle) })
	var parts []*partition
	for i := range partitions {
		p := newPartition(nil, "t", int32(i), d.Lane())
		s.enter(p)
		parts = append(parts, p)
	}
	return s, parts
}

func records(from, n int, key string) []*kgo.Record {
	all := make([]*kgo.Record, n)
	for i := range all {
		all[i] = &kgo.Record{Offset: int64(from + i), Key: []byte(key)}
	}
	return all
}

// Workers that are done before the feeder has counted what it gave them must not
// leave it asleep.
func TestStageFeedsEverythingToFastWorkers(t *testing.T) {
	var finished atomic.Int64
	var s *stage
	ready := make(chan struct{})
	s, parts := staged(t, 64, 2, func(it *dispatch.Item[record]) {
		<-ready
		finished.Add(1)
		if it.Record.part.finish(&it.Record) {
			poke(s.wake)
		}
	})
	close(ready)
	const rounds, each = 200, 300
	for round := range rounds {
		for i, p := range parts {
			s.put(p, records(round*each, each, strconv.Itoa(round*7+i)))
		}
		want := int64((round + 1) * each * len(parts))
		require.Eventually(t, func() bool { return finished.Load() == want }, 30*time.Second, 50*time.Microsecond, "round %d", round)
	}
	require.True(t, s.hasRoom())
}

func TestStageSharesTheBufferBetweenPartitions(t *testing.T) {
	release := make(chan struct{})
	var s *stage
	var mu sync.Mutex
	seen := map[int32]bool{}
	s, parts := staged(t, 128, 4, func(it *dispatch.Item[record]) {
		mu.Lock()
		seen[it.Record.part.number] = true
		mu.Unlock()
		<-release
		if it.Record.part.finish(&it.Record) {
			poke(s.wake)
		}
	})
	defer close(release)
	for _, p := range parts { // as fetched: a long run of one partition after the other
		s.put(p, records(0, 1000, strconv.Itoa(int(p.number))))
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) == len(parts)
	}, 10*time.Second, time.Millisecond, "each partition has a worker")
	for _, p := range parts {
		require.LessOrEqual(t, p.held.Load(), int64(128))
	}
	require.False(t, s.hasRoom(), "what is staged is enough for now")
}

func TestStagePausesOnlyWhatGetsNowhereForAWhile(t *testing.T) {
	cl, err := kgo.NewClient()
	require.NoError(t, err)
	defer cl.Close()
	d := dispatch.New[record](dispatch.Config{})
	idle := true
	s := newStage(minShare, func() bool { return idle })
	p := newPartition(cl, "t", 0, d.Lane())
	s.enter(p)
	s.put(p, records(0, 10*minShare, "slow"))
	s.deal()
	for range 2 * stuckChecks {
		p.finished.Add(1) // slowly, but it does
		s.pauseStuck()
	}
	require.False(t, p.paused)
	for range stuckChecks - 1 {
		s.pauseStuck()
	}
	require.False(t, p.paused, "its workers may have found no processor")
	idle = false
	s.pauseStuck()
	require.False(t, p.paused, "there is enough to do")
	idle = true
	s.pauseStuck()
	require.True(t, p.paused)
}
