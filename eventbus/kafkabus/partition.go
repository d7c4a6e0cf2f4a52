package kafkabus

import (
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// record is an event in the hands of a consumer.
type record struct {
	*kgo.Record
	part *partition
	size int64

	detached bool // from what was fetched with it
}

// partition is one that this member owns.
type partition struct {
	number int32
	client *kgo.Client
	topic  map[string][]int32 // the partition in the client's terms
	lane   *dispatch.Lane[record]

	held  atomic.Int64 // records that are not done
	bytes atomic.Int64 // their sizes

	mu     sync.Mutex // held while the client is told
	paused atomic.Bool

	stored int64 // the position that was committed; under consumer.committing
}

func newPartition(cl *kgo.Client, topic string, number int32, lane *dispatch.Lane[record]) *partition {
	return &partition{number: number, client: cl, topic: map[string][]int32{topic: {number}}, lane: lane, stored: -1}
}

// pause stops fetching the partition until it holds no more than low records.
func (p *partition) pause(low int64) {
	p.mu.Lock()
	p.client.PauseFetchPartitions(p.topic)
	p.paused.Store(true)
	p.mu.Unlock()
	p.resume(low) // they may have been done meanwhile
}

// resume goes on fetching a paused partition when no more than low records are
// held.
func (p *partition) resume(low int64) {
	if !p.paused.Load() || p.held.Load() > low {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused.CompareAndSwap(true, false) {
		p.client.ResumeFetchPartitions(p.topic)
	}
}

// finish notes that r is done and returns how many are not.
func (p *partition) finish(r *record) int64 {
	p.bytes.Add(-r.size)
	return p.held.Add(-1)
}

// next returns the position to commit; ok is false while that is unknown.
func (p *partition) next() (offset int64, ok bool) {
	watermark, ok := p.lane.Watermark()
	return watermark + 1, ok
}
