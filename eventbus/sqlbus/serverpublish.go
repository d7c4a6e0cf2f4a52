package sqlbus

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

func (s *server) publish(ctx context.Context, topic string, rows []row, size int) error {
	for i := range rows { // the caller may leave while they are on their way
		rows[i].payload = bytes.Clone(rows[i].payload)
	}
	commit := func(l *lane, batch []*op) error { return l.commitEvents(topic, batch) }
	if err := s.submit(ctx, "topic "+topic, commit, &op{rows: rows, size: size}); err != nil {
		return err
	}
	s.flavour.published(topic)
	return nil
}

// takeSlot is undone by freeSlot. It fails once the server is closed.
func (s *server) takeSlot() error {
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-s.open.Done():
		return &unsentError{context.Cause(s.open)}
	}
}

func (s *server) freeSlot() { <-s.slots }

// commitEvents writes the rows of a batch in one transaction. A commit of which
// the answer is missing is looked up, so that nothing is written twice and an
// attempt that is still on its way somewhere can't overtake what comes later.
func (l *lane) commitEvents(topic string, batch []*op) error {
	rows, size := batch[0].rows, batch[0].size
	for _, o := range batch[1:] {
		rows = append(rows[:len(rows):len(rows)], o.rows...)
		size += o.size
	}
	s := l.server
	if err := s.takeSlot(); err != nil {
		return err
	}
	defer s.freeSlot()
	timeout := statementTimeout + time.Duration(size>>20)*time.Second
	chunks := s.chunks(rows)
	id := s.batch()
	write := func(ctx context.Context, conn *sql.Conn) error {
		return s.write(ctx, conn, topic, id, l.written, chunks)
	}
	err := s.onConnection(timeout, write)
	if err != nil && s.flavour.missing(err) {
		if err = s.prepareTopic(topic); err == nil {
			err = s.onConnection(timeout, write)
		}
	}
	var unsent *unsentError
	if err != nil && s.flavour.verdict(err) == lost && !errors.As(err, &unsent) {
		err = s.settle(id, err, l.failed)
	}
	if err == nil {
		l.written = id
	}
	return err
}

// batch returns an id that was never used.
func (s *server) batch() string { return fmt.Sprintf("%s-%d", s.id, s.batches.Add(1)) }

// chunks cuts rows to what one statement may hold.
func (s *server) chunks(rows []row) (all [][]row) {
	for len(rows) > 0 {
		n, size := 0, 0
		for n < len(rows) && n < maxChunkRows {
			if size += rows[n].size() + rowOverhead; n > 0 && size > s.flavour.maxBytes() {
				break
			}
			n++
		}
		all = append(all, rows[:n])
		rows = rows[n:]
	}
	return all
}

// maxChunkRows keeps a MySQL statement of rows within its limits.
const maxChunkRows = 5000

// rowOverhead is for what a statement holds of a row beside its bytes.
const rowOverhead = 512

func (r *row) size() int { return len(r.key) + len(r.id) + len(r.metadata) + len(r.payload) }

// write does it in one round trip if there is one chunk.
func (s *server) write(ctx context.Context, conn *sql.Conn, topic, id, before string, chunks [][]row) error {
	execute := func(query string, args []any) error {
		_, err := conn.ExecContext(ctx, query, args...)
		return err
	}
	if len(chunks) == 1 {
		return execute(s.flavour.insert(topic, id, before, chunks[0], true))
	}
	if _, err := conn.ExecContext(ctx, s.flavour.begin()); err != nil {
		return err
	}
	for _, chunk := range chunks {
		if err := execute(s.flavour.insert(topic, id, before, chunk, false)); err != nil {
			return err
		}
		id, before = "", "" // recorded once
	}
	_, err := conn.ExecContext(ctx, "COMMIT")
	return err
}

func (s *server) prepareTopic(topic string) error {
	return s.inTransaction(statementTimeout, func(tx *session) error { return s.flavour.prepareTopic(tx, topic) })
}

// settle finds out whether the batch was committed, and if not sees to it that
// it never will be, by taking its id. It returns nil if it was, and cause if
// not; it ends with close at the latest. It tells failed why it has not ended yet.
func (s *server) settle(id string, cause error, failed func(error)) error {
	for pause := minLaneWait; ; pause = min(2*pause, maxLaneWait) {
		err := s.inTransaction(statementTimeout, func(tx *session) error {
			_, err := tx.exec("INSERT INTO millrace_batches (id, written_at, fence) VALUES (?, {now}, 1)", id)
			return err
		})
		switch {
		case err == nil:
			return cause
		case s.flavour.duplicate(err):
			return s.wasWritten(id, cause)
		}
		failed(err)
		if !wait(s.open, nil, jitter(pause)) {
			return fmt.Errorf("%w: %w", errUnknown, cause)
		}
	}
}

// wasWritten tells a batch that was committed from one that settle has fenced
// off before, in an attempt that failed otherwise.
func (s *server) wasWritten(id string, cause error) error {
	for pause := minLaneWait; ; pause = min(2*pause, maxLaneWait) {
		fence, _, err := s.read.number("SELECT fence FROM millrace_batches WHERE id = ?", id)
		switch {
		case err == nil && fence == 0:
			return nil
		case err == nil:
			return cause
		}
		if !wait(s.open, nil, jitter(pause)) {
			return fmt.Errorf("%w: %w", errUnknown, errors.Join(cause, err))
		}
	}
}
