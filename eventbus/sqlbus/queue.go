package sqlbus

import (
	"errors"
	"slices"
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

	// under writer.mu
	abandoned bool
	alone     bool // failed in company: must not fail its neighbours again
}

// abandon takes o out of the queue and reports whether it was there.
func (w *writer) abandon(o *op) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.queue, o)
	if i < 0 {
		o.abandoned = true
		return false
	}
	w.queue = slices.Delete(w.queue, i, i+1)
	return true
}

func (w *writer) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) > 0
}

// take removes the next batch from the queue.
func (w *writer) take() []*op {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, size := 0, 0
	for n < len(w.queue) && n < maxBatchOps {
		o := w.queue[n]
		size += o.size
		if n > 0 && (o.alone || size > maxBatchBytes) {
			break
		}
		if n++; o.alone {
			break
		}
	}
	batch := slices.Clone(w.queue[:n])
	w.queue = slices.Delete(w.queue, 0, n)
	return batch
}

// again puts a batch that was rolled back at the front of the queue.
func (w *writer) again(batch []*op, alone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := batch[:0]
	for _, o := range batch {
		if o.abandoned {
			o.finish(errAbandoned)
			continue
		}
		o.alone = o.alone || alone
		kept = append(kept, o)
	}
	w.queue = slices.Insert(w.queue, 0, kept...)
}

func (o *op) finish(err error) {
	o.err = err
	close(o.done)
}
