package sqlbus

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// record is an event in the hands of a consumer.
type record struct {
	part       *partition
	position   int64
	key, id    string
	metadata   message.Metadata
	payload    []byte
	size       int64
	attempt    int
	redelivery bool // read from millrace_exceptions, not from the log

	// postponed is when a delayed redelivery that could not be stored yet is
	// due; 0 otherwise.
	postponed int64
}

// partition is one that this member owns.
type partition struct {
	number int
	token  int64
	lane   *dispatch.Lane[*record]

	held      atomic.Int64 // records that are not done
	bytes     atomic.Int64 // their sizes
	withdrawn atomic.Bool  // the lane is revoked and nothing of it runs

	// Of the feeder alone: the position up to which the log was read, and the
	// last position in the lane. The latter are not those of the log, because
	// redeliveries come back at the end.
	read    int64
	ordinal int64
	news    bool // there may be something to read

	mu       sync.Mutex
	giveUp   bool               // a release is under way: nothing is read any more
	marks    []mark             // events from the log above the watermark, in order
	cursor   int64              // position up to which the log is done
	stored   int64              // what of it is committed
	acked    []int64            // redeliveries whose row is to be removed
	inHand   map[int64]struct{} // redeliveries read and still in the table
	leftover int64              // last settled exception that may be in the table; 0: none
}

// mark says which position of the log a position in the lane stands for.
type mark struct {
	ordinal, position int64
	acked             bool
}

func newPartition(number int, token, cursor, leftover int64, lane *dispatch.Lane[*record]) *partition {
	return &partition{
		number: number, token: token, lane: lane, leftover: leftover,
		news: true, read: cursor, cursor: cursor, stored: cursor, inHand: map[int64]struct{}{},
	}
}

// next gives the record that is about to be added its position in the lane.
func (p *partition) next(r *record) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ordinal++
	p.held.Add(1)
	p.bytes.Add(r.size)
	if r.redelivery {
		p.inHand[r.position] = struct{}{}
	} else {
		p.read = r.position
		p.marks = append(p.marks, mark{p.ordinal, r.position, false})
	}
	return p.ordinal
}

// full reports whether the partition holds as much as it may.
func (p *partition) full(maxHeld int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held.Load() >= maxHeld || len(p.marks) >= maxMarks
}

// finish notes that r needs no further delivery from the lane. What is acked is
// remembered, to be stored with the next commit.
func (p *partition) finish(r *record, acked bool) {
	p.held.Add(-1)
	p.bytes.Add(-r.size)
	r.payload, r.metadata = nil, nil // it may wait long for the watermark
	if !acked {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.redelivery {
		p.acked = append(p.acked, r.position)
		return
	}
	i, found := slices.BinarySearchFunc(p.marks, r.position, func(m mark, position int64) int { return cmp.Compare(m.position, position) })
	if found {
		p.marks[i].acked = true
	}
}

// advance is what is to be committed of a partition.
type advance struct {
	part     *partition
	cursor   int64
	acked    []int64 // redeliveries
	leftover bool    // there may be settled exceptions below the cursor
	above    []int64 // events above the cursor that are acked; only for a release
}

// advance returns what is to be committed; ok is false when nothing is.
func (p *partition) advance(release bool) (a advance, ok bool) {
	ordinal, moved := p.lane.Watermark()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for moved && n < len(p.marks) && p.marks[n].ordinal <= ordinal {
		p.cursor = p.marks[n].position
		n++
	}
	if p.marks = p.marks[n:]; len(p.marks) == 0 {
		p.marks = nil
	}
	a = advance{part: p, cursor: p.cursor, leftover: p.leftover > 0, acked: p.acked[:len(p.acked):len(p.acked)]}
	for _, m := range p.marks {
		if release && m.acked {
			a.above = append(a.above, m.position)
		}
	}
	return a, release || p.cursor > p.stored || len(p.acked) > 0
}

// committed notes that a is durable. The caller holds consumer.hands.
func (p *partition) committed(a advance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stored = a.cursor
	if p.stored >= p.leftover {
		p.leftover = 0
	}
	for _, position := range a.acked {
		delete(p.inHand, position)
		if position > a.cursor {
			p.leftover = max(p.leftover, position)
		}
	}
	p.acked = p.acked[len(a.acked):]
}

// seal stops the reading and reports whether it was not sealed before.
func (p *partition) seal() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.giveUp
	p.giveUp = true
	return first
}

func (p *partition) sealed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.giveUp
}

// takes reports whether a redelivery may be added to the lane.
func (p *partition) takes(position int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, inHand := p.inHand[position]
	return !inHand && !p.giveUp
}

// hands returns how many redeliveries were read and are still in the table.
func (p *partition) hands() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.inHand)
}

// forget takes a redelivery that went back to the table out of hand. The caller
// holds consumer.hands.
func (p *partition) forget(position int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.inHand, position)
}
