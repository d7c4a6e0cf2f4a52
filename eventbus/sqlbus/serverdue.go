package sqlbus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// stragglerWait is how long moveDue waits for topics that may be locked.
const stragglerWait = 50 * time.Millisecond

// moveDue moves all topics side by side and does not wait for those that are
// locked: they go on by themselves, and nobody else waits for them.
func (s *server) moveDue(ctx context.Context) error {
	topics, err := s.dueTopics()
	if err != nil {
		return err
	}
	moved := make(chan error, len(topics))
	for _, topic := range topics {
		s.working.Go(func() { moved <- s.moveTopic(topic) })
	}
	late := time.NewTimer(stragglerWait)
	defer late.Stop()
	for n := 0; n < max(1, len(topics)); n++ { // with stragglers alone there is nothing to do but wait
		select {
		case moveErr := <-moved:
			err = errors.Join(err, moveErr)
		case <-late.C:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return err
}

func (s *server) moveTopic(topic string) error {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.moving, topic)
	}()
	move := func(tx *session) error { return s.flavour.moveDue(tx, topic) }
	if err := s.submit(s.open, "due "+topic, (*lane).transactInSlot, &op{run: move}); err != nil {
		return err
	}
	s.flavour.published(topic)
	return nil
}

// dueTopics returns topics that have due events and are not being moved. It
// marks them as being moved.
func (s *server) dueTopics() (topics []string, err error) {
	s.mu.Lock()
	moving := slices.Collect(maps.Keys(s.moving))
	s.mu.Unlock()
	query, args := dueQuery(moving)
	err = s.read.each(query, args, func(rows *sql.Rows) (bool, error) {
		var topic string
		err := rows.Scan(&topic)
		topics = append(topics, topic)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, topic := range topics {
		s.moving[topic] = true
	}
	return topics, nil
}

// dueQuery leaves topics out, since a locked one may have more events than the
// query looks at.
func dueQuery(without []string) (string, []any) {
	condition, args := "", make([]any, len(without))
	for i, topic := range without {
		args[i] = topic
	}
	if len(without) > 0 {
		condition = " AND topic NOT IN (?" + strings.Repeat(", ?", len(without)-1) + ")"
	}
	return fmt.Sprintf("SELECT DISTINCT topic FROM (SELECT topic FROM millrace_due WHERE due_at <= {now}%s ORDER BY due_at, seq LIMIT %d) AS d", condition, dueStep), args
}
