package saga

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/saga/internal/tables"
)

// Commit is Store.Commit. Transactions that the database gives up because of
// another one, by a deadlock or a failed serialization, are tried again. A commit
// whose answer is lost is an error although it may have happened; repeating it
// finds out, by ErrDuplicate or ErrConflict.
func (s *SQLStore) Commit(ctx context.Context, c Commit) error {
	if s.err != nil {
		return s.err
	}
	args, err := transitionArgs(c)
	if err != nil {
		return eventbus.Permanent(s.failed("commit", err))
	}
	if s.commit != nil {
		one, together := s.guarded(c)
		err = s.commit(ctx, tables.Transition{
			Consumer: c.Consumer, Source: c.Source, EventID: c.EventID,
			Statement: one, Together: together, Args: args,
			Publish: func(ctx context.Context, to message.Publisher) error { return publish(ctx, to, c.Messages) },
		})
	} else {
		err = s.transact(ctx, c, args)
	}
	switch {
	case errors.Is(err, ErrConflict):
		return ErrConflict
	case errors.Is(err, ErrDuplicate):
		return ErrDuplicate
	case err != nil:
		return s.failed("commit", err)
	}
	return nil
}

func (s *SQLStore) guarded(c Commit) (one, together string) {
	if c.Instance.Revision == 1 {
		return s.sql.guardedInsert, s.sql.insertTogether
	}
	return s.sql.guardedUpdate, s.sql.updateTogether
}

// transact commits by database/sql. The mark comes first, so that deliveries of
// one event wait for each other before anything else is done.
func (s *SQLStore) transact(ctx context.Context, c Commit, args []any) error {
	write := func(ctx context.Context, tx *sql.Tx) error {
		if err := s.write(ctx, tx, c.Instance.Revision == 1, args); err != nil {
			return err
		}
		return publish(ctx, s.box.In(tx), c.Messages)
	}
	if c.EventID == "" {
		return s.box.Transact(ctx, write)
	}
	mark := idempotency.Mark{Consumer: c.Consumer, Source: c.Source, ID: c.EventID}
	return s.sql.dialect.Retry(ctx, func() error {
		duplicate, err := s.inbox.Transact(ctx, mark, write)
		if duplicate {
			return ErrDuplicate
		}
		return err
	})
}

// write writes the instance, if it has the revision before, and its history.
func (s *SQLStore) write(ctx context.Context, tx *sql.Tx, first bool, args []any) error {
	instance, entry := args, []any(nil)
	if s.sql.dialect != Postgres {
		instance, entry = split(args, first)
	}
	statement := s.sql.update
	if first {
		statement = s.sql.insert
	}
	res, err := tx.ExecContext(ctx, statement, instance...)
	if first && s.sql.dialect == MySQL && s.sql.dialect.IsDuplicateKey(err) {
		return ErrConflict
	}
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	switch {
	case err != nil:
		return err
	case n == 0:
		return ErrConflict
	case entry == nil:
		return nil
	}
	_, err = tx.ExecContext(ctx, s.sql.record, entry...)
	return err
}

// The arguments of a transition: those of the instance, with its key in front, and
// those of the history beyond the key.
const (
	argVersion, argRevision = 2, 3
	instanceArgs            = 13
)

// transitionArgs returns the arguments of a transition.
func transitionArgs(c Commit) ([]any, error) {
	i, e := c.Instance, c.Entry
	switch {
	case i.Saga == "" || len(i.Saga) > maxName || strings.ContainsRune(i.Saga, 0):
		return nil, fmt.Errorf("the name of the saga must have 1 to %d bytes, and no zero byte: %q", maxName, i.Saga)
	case i.ID == "" || len(i.ID) > maxID:
		return nil, fmt.Errorf("the id of an instance must have 1 to %d bytes, got %d", maxID, len(i.ID))
	case i.Revision < 1:
		return nil, fmt.Errorf("the revision must be at least 1, got %d", i.Revision)
	case len(i.Status) > maxName:
		return nil, fmt.Errorf("%q is no status", i.Status)
	}
	emitted, err := json.Marshal(e.Emitted)
	if err != nil {
		return nil, err
	}
	return []any{
		i.Saga, stored(i.ID), int64(i.Version), i.Revision, string(i.Status), int64(i.StateVersion),
		millis(i.Wake), millis(i.Created), millis(i.Updated), text(i.Error), stored(i.Progress), stored(i.State), rested(i),
		millis(e.At), text(e.Event), stored(e.EventID), text(e.From), text(e.To), string(emitted), text(e.Note), stored(e.State),
	}, nil
}

// split returns the arguments of the two statements that a transition is where it
// is not one.
func split(args []any, first bool) (instance, entry []any) {
	key, revision := args[:argVersion], args[argRevision].(int64)
	instance = args[:instanceArgs]
	if !first {
		instance = append(append([]any{}, instance[argVersion:]...), key[0], key[1], revision-1)
	}
	return instance, append([]any{key[0], key[1], revision}, args[instanceArgs:]...)
}

// rested is when an instance came to rest. For one that is on its way it is
// negative, when it is to be recovered, or 0.
func rested(i Instance) int64 {
	if i.Status.moving() {
		return -millis(i.RecoverAt)
	}
	return millis(i.Updated)
}

// stored returns bytes for a driver, never nil, which would be NULL.
func stored[T ~string | ~[]byte](v T) []byte {
	if len(v) == 0 {
		return []byte{}
	}
	return []byte(v)
}

// text is for people: what some database would refuse is replaced.
func text(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}

// millis returns t in Unix milliseconds, and 0 for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// publish publishes copies of messages with ctx, in order, those of one topic that
// follow each other together.
func publish(ctx context.Context, to message.Publisher, messages []Message) error {
	for first := 0; first < len(messages); {
		var run []*message.Message
		topic := messages[first].Topic
		for ; first < len(messages) && messages[first].Topic == topic; first++ {
			run = append(run, withContext(ctx, messages[first].Message))
		}
		if err := to.Publish(topic, run...); err != nil {
			return err
		}
	}
	return nil
}

func withContext(ctx context.Context, m *message.Message) *message.Message {
	if m == nil {
		return nil // which is refused
	}
	c := &message.Message{UUID: m.UUID, Metadata: m.Metadata, Payload: m.Payload}
	c.SetContext(ctx)
	return c
}
