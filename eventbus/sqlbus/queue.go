package sqlbus

import (
	"errors"
	"slices"
	"sync"
)

// A transaction takes what is queued, up to these bounds.
const (
	maxBatchOps   = 512
	maxBatchBytes = 8 << 20
)

// errAbandoned settles an op whose caller has gone.
var errAbandoned = errors.New("abandoned")

// op is a unit of writing: all of it is committed, or none.
type op struct {
	// run may be called again after a rollback, so it must not add to anything
	// outside of the database.
	run  func(*session) error
	size int
	done chan struct{}
	err  error // readable once done is closed

	rows []row // instead of run, on a server

	// under queue.mu
	abandoned bool
	alone     bool // failed in company: must not fail its neighbours again
}

// queue holds the ops that are not in a transaction.
type queue struct {
	mu  sync.Mutex
	ops []*op
}

func (q *queue) push(o *op) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ops = append(q.ops, o)
}

// abandon takes o out of the queue and reports whether it was there.
func (q *queue) abandon(o *op) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.ops, o)
	if i < 0 {
		o.abandoned = true
		return false
	}
	q.ops = slices.Delete(q.ops, i, i+1)
	return true
}

func (q *queue) pending() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ops) > 0
}

// take removes the next batch from the queue.
func (q *queue) take() []*op {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.ops) && n < maxBatchOps {
		o := q.ops[n]
		size += o.size
		if n > 0 && (o.alone || size > maxBatchBytes) {
			break
		}
		if n++; o.alone {
			break
		}
	}
	batch := slices.Clone(q.ops[:n])
	q.ops = slices.Delete(q.ops, 0, n)
	return batch
}

// again puts a batch that was rolled back at the front of the queue.
func (q *queue) again(batch []*op, alone bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := batch[:0]
	for _, o := range batch {
		if o.abandoned {
			o.finish(errAbandoned)
			continue
		}
		o.alone = o.alone || alone
		kept = append(kept, o)
	}
	q.ops = slices.Insert(q.ops, 0, kept...)
}

func (o *op) finish(err error) {
	o.err = err
	close(o.done)
}
