package sqlbus

import (
	"database/sql"
	"maps"
	"slices"
	"time"
)

// serverCommitEvery leaves servers, who keep old versions of rows for a while,
// fewer of them.
const serverCommitEvery = 50 * time.Millisecond

const (
	// listenPoll is for a server that tells of news by itself, though not of all.
	listenPoll = 250 * time.Millisecond
	// brokenPoll is for a server that is down.
	brokenPoll = time.Second
)

// watch implements engine: what a server does not tell is found by asking.
func (s *server) watch(b *Broker) {
	s.flavour.watch(s, b)
	s.working.Go(func() { s.poll(b) })
}

func (s *server) poll(b *Broker) {
	known := map[string]int64{}
	for pause := s.cfg.Poll; wait(s.open, nil, pause); {
		pause = s.cfg.Poll
		if s.flavour.listening() {
			pause = max(pause, listenPoll)
		}
		topics := b.topicsRead()
		maps.DeleteFunc(known, func(topic string, _ int64) bool { return !slices.Contains(topics, topic) })
		if len(topics) == 0 {
			continue
		}
		if err := s.findNews(b, topics, known); err != nil {
			pause = max(pause, brokenPoll)
		}
	}
}

func (s *server) findNews(b *Broker, topics []string, known map[string]int64) error {
	query, args := s.flavour.heads(topics)
	return s.read.each(query, args, func(rows *sql.Rows) (bool, error) {
		var topic string
		var position sql.NullInt64
		if err := rows.Scan(&topic, &position); err != nil {
			return false, err
		}
		if before, ok := known[topic]; !ok || before != position.Int64 {
			known[topic] = position.Int64
			b.wake(topic)
		}
		return true, nil
	})
}

// topicsRead returns the topics of running consumers.
func (b *Broker) topicsRead() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := map[string]bool{}
	var topics []string
	for c := range b.consumers {
		if !seen[c.sub.Topic] {
			seen[c.sub.Topic] = true
			topics = append(topics, c.sub.Topic)
		}
	}
	return topics
}
