package kafkabus

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

const (
	// maxBytes bounds the records that a consumer holds; it is checked before each
	// poll.
	maxBytes = 64 << 20
	// starving is how often it is checked whether workers are idle while nothing more
	// is polled.
	starving = 10 * time.Millisecond
	// stuckChecks is for how many checks a partition may get nowhere. A worker that
	// found no processor looks like one whose handler takes long, for a while.
	stuckChecks = 3
	// minShare lets a partition keep some workers busy, however many there are.
	minShare = 32
)

// stage is where records wait between the poller and their lanes. What is fetched
// comes in long runs of one partition; the stage deals it out evenly, so that the
// keys of all partitions are worked on.
//
// All lanes together hold about limit records, and about as many are staged, and
// one fetch. If workers are idle all the same, because what is there waits for a
// few keys, partitions that get nowhere are paused and do not count.
type stage struct {
	limit int64
	idle  func() bool // workers are

	wake chan struct{} // pokes the feeder: something was staged, or a lane needs more
	room chan struct{} // pokes the poller: something was dealt

	mu    sync.Mutex
	parts []*partition
	first int // whose turn it is
	batch []dispatch.Entry[record]
	read  reader
}

func newStage(limit int64, idle func() bool) *stage {
	return &stage{limit: limit, idle: idle, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// awaitRoom returns true when there is room to poll, false when ctx has ended.
func (s *stage) awaitRoom(ctx context.Context) bool {
	var tick <-chan time.Time
	for ctx.Err() == nil {
		if s.hasRoom() {
			return true
		}
		if tick == nil {
			t := time.NewTicker(starving)
			defer t.Stop()
			tick = t.C
		}
		select {
		case <-s.room:
		case <-tick:
			s.pauseStuck()
			poke(s.wake)
		case <-ctx.Done():
		}
	}
	return false
}

func (s *stage) hasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	staged, bytes := 0, int64(0)
	for _, p := range s.parts {
		bytes += p.bytes.Load()
		if !p.paused {
			staged += p.staged
		}
	}
	return int64(staged) < s.limit && bytes < maxBytes
}

// pauseStuck is called at each tick. If workers are idle, it pauses the partition
// with most records of those that got nowhere for some ticks.
func (s *stage) pauseStuck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := s.idle() // asked here, where nothing is being dealt
	var heaviest *partition
	for _, p := range s.parts {
		finished := p.finished.Load()
		if p.stuck++; finished != p.seen || p.held.Load() <= p.low.Load() {
			p.stuck, p.seen = 0, finished
		}
		if p.stuck >= stuckChecks && !p.paused && p.staged > 0 && (heaviest == nil || p.staged > heaviest.staged) {
			heaviest = p
		}
	}
	if idle && heaviest != nil {
		heaviest.paused = true
		heaviest.client.PauseFetchPartitions(heaviest.topic)
	}
}

// enter makes room for a partition, leave forgets it and what it has staged.
func (s *stage) enter(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts = append(s.parts, p)
}

func (s *stage) leave(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		if s.parts[i] == p {
			s.parts = append(s.parts[:i:i], s.parts[i+1:]...)
			break
		}
	}
	poke(s.room)
}

func (s *stage) put(p *partition, records []*kgo.Record) {
	size := int64(0)
	for _, r := range records {
		size += sizeOf(r)
	}
	p.bytes.Add(size)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.chunks = append(p.chunks, records)
	p.staged += len(records)
	poke(s.wake)
}

// feed moves staged records into lanes until ctx ends.
func (s *stage) feed(ctx context.Context) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		s.deal()
		poke(s.room)
	}
}

// deal has each partition that is down to half of its share fill it. Adding one
// record for each that is done would wake the feeder as often.
func (s *stage) deal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	share := s.share()
	s.first++
	for i := range s.parts {
		p := s.parts[(s.first+i)%len(s.parts)]
		p.low.Store(share / 2)
		if p.staged > 0 && p.held.Load() <= share/2 {
			s.fill(p, share)
		}
	}
}

// share is how many records a partition may have in its lane, if all that have
// any get the same.
func (s *stage) share() int64 {
	active := int64(0)
	for _, p := range s.parts {
		if p.staged > 0 || p.held.Load() > 0 {
			active++
		}
	}
	return max(minShare, s.limit/max(1, active))
}

func (s *stage) fill(p *partition, share int64) {
	s.batch = s.batch[:0]
	for want := share - p.held.Load(); want > 0 && p.staged > 0; {
		want -= s.prepare(p, p.first(want))
	}
	p.held.Add(int64(len(s.batch)))
	_, _ = p.lane.AddBatch(context.Background(), s.batch) // fails only once it was revoked, and then it will leave
	clear(s.batch)
	if p.staged > 0 && p.held.Load() <= share/2 {
		poke(s.wake) // they were done before they were counted, so nobody else will
	}
	if p.paused && int64(p.staged) <= s.limit/4 {
		p.paused = false
		p.client.ResumeFetchPartitions(p.topic)
	}
}

// prepare moves some of records, which are the first that p has staged, to the batch
// and returns how many.
func (s *stage) prepare(p *partition, records []*kgo.Record) int64 {
	n, text := s.read.read(records)
	for i, x := range s.read.reads {
		r := records[i]
		s.batch = append(s.batch, dispatch.Entry[record]{
			Key: text[x.key:x.keyTo], Position: r.Offset, Attempt: 1,
			Record: record{Record: r, values: text[x.from:x.to], part: p, size: sizeOf(r)},
		})
	}
	p.unstage(n)
	return int64(n)
}
