package kafkabus

import (
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// record is an event in the hands of a consumer.
type record struct {
	*kgo.Record
	values string // of its headers; see reader
	part   *partition
	size   int64

	detached bool // from what was fetched with it
}

// partition is one that this member owns.
type partition struct {
	number int32
	client *kgo.Client
	topic  map[string][]int32 // the partition in the client's terms
	lane   *dispatch.Lane[record]

	held     atomic.Int64 // records in the lane that are not done
	low      atomic.Int64 // how many held records want more
	bytes    atomic.Int64 // sizes of the held and the staged
	finished atomic.Int64 // records that are done

	// Under stage.mu: what was fetched and is not in the lane yet.
	chunks [][]*kgo.Record
	staged int
	paused bool
	seen   int64 // of finished, at the last tick that it got on
	stuck  int   // ticks since then

	stored int64 // the position that was committed; under consumer.committing
}

func newPartition(cl *kgo.Client, topic string, number int32, lane *dispatch.Lane[record]) *partition {
	return &partition{number: number, client: cl, topic: map[string][]int32{topic: {number}}, lane: lane, stored: -1}
}

// first returns staged records that follow each other, up to n, of which there is
// one.
func (p *partition) first(n int64) []*kgo.Record {
	chunk := p.chunks[0]
	return chunk[:min(n, int64(len(chunk)))]
}

// unstage removes the first n staged records, which first has returned.
func (p *partition) unstage(n int) {
	chunk := p.chunks[0]
	clear(chunk[:n])
	if p.chunks[0] = chunk[n:]; len(chunk) == n {
		p.chunks[0] = nil
		p.chunks = p.chunks[1:]
	}
	p.staged -= n
}

// finish notes that r is done and reports whether the lane wants more.
func (p *partition) finish(r *record) bool {
	p.bytes.Add(-r.size)
	p.finished.Add(1)
	return p.held.Add(-1) == p.low.Load()
}

// next returns the position to commit; ok is false while that is unknown.
func (p *partition) next() (offset int64, ok bool) {
	watermark, ok := p.lane.Watermark()
	return watermark + 1, ok
}
