package amqpbus

import (
	"context"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Members of a group hear of each other through a fanout exchange. Who reads
// which queue follows from who is there. Members may disagree for a moment: a
// queue then has several consumers, of which RabbitMQ serves one, or none.
const (
	beatEvery   = time.Second
	expireAfter = 5 * time.Second

	saysHello = "hello" // I am new, answer
	saysHere  = "here"
	saysBye   = "bye"
)

// membership is one stay of a member in its group.
type membership struct {
	id       string
	exchange string
	ch       *amqp.Channel // nil while nobody can be heard
	heard    <-chan amqp.Delivery
	seen     map[string]time.Time // the others
	words    chan string          // to be said
	said     chan struct{}        // closed when all are
}

func newMembership(exchange string) *membership {
	return &membership{
		id: watermill.NewShortUUID(), exchange: exchange, seen: map[string]time.Time{},
		words: make(chan string, 16), said: make(chan struct{}),
	}
}

// join makes this member known. After an error it hears nobody.
func (m *membership) join(s *session) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	if err := m.listen(ch); err != nil {
		_ = ch.Close()
		return err
	}
	m.ch = ch
	m.say(saysHello)
	return nil
}

func (m *membership) listen(ch *amqp.Channel) error {
	limits := amqp.Table{"x-max-length": int32(1000), "x-message-ttl": int32(expireAfter / time.Millisecond)}
	q, err := ch.QueueDeclare("", false, true, true, false, limits)
	if err != nil {
		return err
	}
	if err := ch.QueueBind(q.Name, "", m.exchange, false, nil); err != nil {
		return err
	}
	heard, err := ch.Consume(q.Name, "", true, true, false, false, nil)
	if err == nil {
		m.heard = heard
	}
	return err
}

// say never waits. A word that is lost is said again soon.
func (m *membership) say(word string) {
	if m.ch == nil {
		return
	}
	select {
	case m.words <- word:
	default:
	}
}

// speak publishes what is said until hush. It gets stuck, alone, while the broker
// takes no publishes: members then lose sight of each other, and each stands by
// for all queues.
func (m *membership) speak(ctx context.Context, l *link) {
	defer close(m.said)
	var s *session
	var ch *amqp.Channel
	for word := range m.words {
		if ch == nil || ch.IsClosed() {
			if s, ch = voice(ctx, l); ch == nil {
				continue
			}
		}
		if s.blocked.Load() == nil {
			_ = ch.Publish(m.exchange, "", false, false, amqp.Publishing{Body: []byte(word + " " + m.id)})
		}
	}
	if ch != nil {
		defer s.guard()()
		_ = ch.Close() // answered after all is said
	}
}

func voice(ctx context.Context, l *link) (*session, *amqp.Channel) {
	s, err := l.get(ctx)
	if err != nil {
		return nil, nil
	}
	defer s.guard()()
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, nil
	}
	return s, ch
}

// lastWords is how long a member that leaves waits until it has said so.
const lastWords = time.Second

// hush ends speak once all is said, if that does not take long.
func (m *membership) hush() {
	close(m.words)
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case <-m.said:
	case <-timer.C:
	}
}

// leave is also for when the channel is lost.
func (m *membership) leave() {
	if m.ch != nil {
		_ = m.ch.Close()
	}
	m.ch, m.heard = nil, nil
}

// note takes in what a member said and reports whether the group changed.
func (m *membership) note(d *amqp.Delivery) (changed bool) {
	word, id, ok := strings.Cut(string(d.Body), " ")
	if !ok || id == m.id {
		return false
	}
	_, known := m.seen[id]
	switch word {
	case saysHello:
		m.say(saysHere)
		m.seen[id] = time.Now()
	case saysHere:
		m.seen[id] = time.Now()
	case saysBye:
		delete(m.seen, id)
		return known
	default:
		return false
	}
	return !known
}

// expire forgets members that fell silent and reports whether there were any.
func (m *membership) expire() (changed bool) {
	before := len(m.seen)
	maps.DeleteFunc(m.seen, func(_ string, at time.Time) bool { return time.Since(at) > expireAfter })
	return len(m.seen) != before
}

func (m *membership) all() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for id := range m.seen {
			if !yield(id) {
				return
			}
		}
		yield(m.id)
	})
}

// first reports whether this member does what one must do for all.
func (m *membership) first() bool { return m.all()[0] == m.id }

// share returns the queues that are this member's.
func (m *membership) share(queues int) map[int]bool {
	mine := map[int]bool{}
	for q, owner := range assign(queues, m.all()) {
		if owner == m.id {
			mine[q] = true
		}
	}
	return mine
}

// assign returns the owner of each queue: shares differ by one at most, and a
// member that comes or goes moves few queues. Each queue goes to the member that
// ranks highest for it among those that may have more.
func assign(queues int, members []string) []string {
	least, more := queues/len(members), queues%len(members)
	load := make(map[string]int, len(members))
	owners := make([]string, queues)
	for q := range owners {
		best, bestRank := "", uint64(0)
		for _, id := range members {
			if load[id] > least || load[id] == least && more == 0 {
				continue
			}
			if rank := rankOf(q, id); best == "" || rank > bestRank {
				best, bestRank = id, rank
			}
		}
		owners[q] = best
		if load[best]++; load[best] > least {
			more--
		}
	}
	return owners
}

func rankOf(q int, id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte{byte(q)})
	_, _ = h.Write([]byte(id))
	sum := h.Sum64() // FNV mixes its last bytes badly
	sum ^= sum >> 33
	sum *= 0xff51afd7ed558ccd
	return sum ^ sum>>33
}
