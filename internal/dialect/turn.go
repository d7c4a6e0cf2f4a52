package dialect

import (
	"context"
	"database/sql"
	"runtime"
	"sync"
	"time"
	"weak"
)

// Turn waits until it is the caller's turn to write to db, and returns what to
// call when it has written. Only SQLite needs it, elsewhere it returns at once.
//
// SQLite has one writer at a time. Who finds it busy sleeps and asks again, with
// growing pauses: beside a single goroutine that writes without pause, another
// one gets to write every second or two. Turns are given first come, first
// served. They are a courtesy among the users of one sql.DB, not a lock: other
// processes and transactions begun elsewhere don't take part, and who has
// waited for patience goes ahead to hear from the database itself.
func (d Dialect) Turn(ctx context.Context, db *sql.DB) (done func(), err error) {
	if d != SQLite {
		return func() {}, nil
	}
	q := queueOf(db)
	select {
	case q <- struct{}{}:
		return func() { <-q }, nil
	default:
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case q <- struct{}{}:
		return func() { <-q }, nil
	case <-limit.C:
		return func() {}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// patience is how long a turn is waited for, which can only be long if somebody
// who has it waits for something else, such as a turn of his own.
const patience = 5 * time.Second

// A queue is a channel with room for one, whose blocked senders are served in
// the order of their coming.
type queue chan struct{}

var queues = struct {
	sync.Mutex
	of map[weak.Pointer[sql.DB]]queue
}{of: map[weak.Pointer[sql.DB]]queue{}}

func queueOf(db *sql.DB) queue {
	p := weak.Make(db)
	queues.Lock()
	defer queues.Unlock()
	q, ok := queues.of[p]
	if !ok {
		q = make(queue, 1)
		queues.of[p] = q
		runtime.AddCleanup(db, forget, p)
	}
	return q
}

func forget(p weak.Pointer[sql.DB]) {
	queues.Lock()
	defer queues.Unlock()
	delete(queues.of, p)
}
