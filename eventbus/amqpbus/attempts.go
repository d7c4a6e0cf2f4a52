package amqpbus

import "sync"

// attempts remembers how often events were tried that are to be tried again, by
// id, for when the broker delivers them anew: after a lost connection, and after
// its consumer timeout, which a long series of retries runs into.
type attempts struct {
	mu   sync.Mutex
	next map[string]int
}

const maxAttempts = 10000 // remembered

// note takes down the next attempt of an event.
func (a *attempts) note(id string, next int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if next <= 1 { // as of any other
		delete(a.next, id)
		return
	}
	if a.next == nil {
		a.next = map[string]int{}
	}
	if _, known := a.next[id]; !known && len(a.next) >= maxAttempts {
		for other := range a.next { // any: those of queues that moved away stay behind
			delete(a.next, other)
			break
		}
	}
	a.next[id] = next
}

// forget is called with events that are settled.
func (a *attempts) forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.next, id)
}

// of returns the next attempt of an event that was delivered before.
func (a *attempts) of(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(1, a.next[id])
}
