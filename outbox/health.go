package outbox

import (
	"sync"
	"time"
)

// tries is what the relay remembers about a row that has failed.
type tries struct {
	failures int    // calls of Publish with this row alone that failed
	attempts int    // those of them that count
	seen     uint64 // health.accepted at the last failure
	alone    bool   // it was in a batch that failed as a whole
}

// downAfter is how many different rows, or batches, must fail in a row before
// the broker counts as down.
const downAfter = 3

// health tells a broker that is down from rows that it refuses. While it is
// down a single row at a time is tried, with growing pauses.
type health struct {
	mu       sync.Mutex
	accepted uint64              // rows the broker took
	failing  int                 // different calls that failed since then
	probe    time.Time           // when the next row may be tried
	pause    time.Duration       // the one before that
	topics   map[string]struct{} // those that failed since the last success
}

// admit says whether Publish may be called now; alone means with one row only.
// If not, wait is how long to hold the rows back. Topics that have failed since
// the last success let others go first, which may be all that works.
func (h *health) admit(topic string) (alone bool, wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failing < downAfter {
		return false, 0
	}
	now := time.Now()
	wait = h.probe.Sub(now)
	if _, failed := h.topics[topic]; failed {
		wait += h.pause / 2
	}
	if wait > 0 {
		return false, wait
	}
	h.rest(now) // one prober at a time
	return true, 0
}

func (h *health) rest(now time.Time) {
	h.pause = backoff(h.failing-downAfter+1, maxOutagePause)
	h.probe = now.Add(h.pause)
}

// down reports whether the broker takes nothing.
func (h *health) down() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failing >= downAfter
}

// succeeded records that rows were accepted, and reports whether the broker
// had been down.
func (h *health) succeeded(rows int) (recovered bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	recovered = h.failing >= downAfter
	h.accepted += uint64(rows)
	h.failing = 0
	clear(h.topics)
	return recovered
}

// failed records a call that got nothing accepted, of rows that had not failed
// since the last success, and reports whether that makes the broker count as
// down.
func (h *health) failed(topic string) (wentDown bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics == nil {
		h.topics = map[string]struct{}{}
	}
	h.topics[topic] = struct{}{}
	h.failing++
	if h.failing >= downAfter {
		h.rest(time.Now())
	}
	return h.failing == downAfter
}

// charge counts a failure against a row, unless nothing else was accepted since
// the row failed before: then it says nothing about the row, and nothing new
// about the broker.
func (h *health) charge(t *tries) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	news = t.failures == 0 || h.accepted > t.seen
	t.failures++
	if news {
		t.attempts++
	}
	t.seen = h.accepted
	return news
}

const (
	maxRowPause    = time.Second
	maxOutagePause = 2 * time.Second
	maxAskedPause  = 30 * time.Second
)

// backoff is the pause after the n-th failure: 50 ms, doubled from failure to
// failure up to a limit.
func backoff(n int, limit time.Duration) time.Duration {
	return min(limit, 50*time.Millisecond<<min(max(n-1, 0), 10))
}
