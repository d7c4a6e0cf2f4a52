package sqlbus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

func (s *server) moveDue(ctx context.Context) error {
	topics, err := s.dueTopics()
	if err != nil {
		return err
	}
	// Side by side: one whose topic is locked holds up nobody else.
	errs := make([]error, len(topics))
	var moving sync.WaitGroup
	for i, topic := range topics {
		moving.Go(func() {
			s.slots <- struct{}{}
			defer func() { <-s.slots }()
			errs[i] = s.do(ctx, "due "+topic, func(tx *session) error { return s.flavour.moveDue(tx, topic) })
			s.flavour.published(topic)
		})
	}
	moving.Wait()
	return errors.Join(errs...)
}

func (s *server) dueTopics() (topics []string, err error) {
	query := fmt.Sprintf("SELECT DISTINCT topic FROM (SELECT topic FROM millrace_due WHERE due_at <= {now} ORDER BY due_at, seq LIMIT %d) AS d", dueStep)
	err = s.read.each(query, nil, func(rows *sql.Rows) (bool, error) {
		var topic string
		err := rows.Scan(&topic)
		topics = append(topics, topic)
		return true, err
	})
	return topics, err
}
