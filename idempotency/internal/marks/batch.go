package marks

import (
	"context"
	"errors"
	"slices"

	"github.com/millrace-go/millrace/internal/aftercommit"
)

// A Backend runs the transactions of batches; T is its kind of transaction.
type Backend[T any] interface {
	// Transact marks keys, which are stored, distinct and in order, calls fn in the
	// same transaction and commits. fresh says which of keys were not there. Errors
	// of fn are returned as they are, those of the database with what was done.
	Transact(ctx context.Context, keys []Key, fn func(tx T, fresh []bool) error) error
	// Exec executes a statement without parameters.
	Exec(ctx context.Context, tx T, statement string) error
	// Unmark deletes marks that tx has written.
	Unmark(ctx context.Context, tx T, keys []Key) error
}

// An event of a batch, with those that have the same key.
type event struct {
	key    Key // stored
	digest Digest
	at     []int // its places in the batch
	fresh  bool
	err    error
}

// batch is one call of Run.
type batch[T any] struct {
	state   *State
	backend Backend[T]
	fn      func(ctx context.Context, tx T, n int) error
}

// Run handles each of keys by fn, which is called with its place, all in one
// transaction. It returns which of them were duplicates and, unless all went
// well, the errors of those that failed; the others are committed. If err is not
// nil nothing is.
//
// At first there are no savepoints, which would cost two round trips an event. If
// an event fails its error is kept, everything is rolled back, and the others
// are handled again, each in a savepoint.
func Run[T any](ctx context.Context, s *State, backend Backend[T], keys []Key, fn func(ctx context.Context, tx T, n int) error) (duplicate []bool, errs []error, err error) {
	duplicate, errs = make([]bool, len(keys)), make([]error, len(keys))
	b := batch[T]{s, backend, fn}
	events := s.plan(keys, duplicate, errs)
	pending := events
	if len(pending) > 0 {
		failed, err := b.pass(ctx, pending, b.plainly)
		if err != nil && failed == nil {
			return nil, nil, err
		}
		if failed != nil {
			pending = slices.DeleteFunc(slices.Clone(pending), func(e *event) bool { return e == failed })
			if len(pending) > 0 {
				if _, err := b.pass(ctx, pending, b.bySavepoints); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	for _, e := range events {
		s.settle(e, duplicate, errs)
	}
	if errors.Join(errs...) == nil {
		return duplicate, nil, nil
	}
	return duplicate, errs, nil
}

// plan finds the events to handle, in order of their first places. It fills in
// what is decided without the database.
func (s *State) plan(keys []Key, duplicate []bool, errs []error) []*event {
	var events []*event
	known := make(map[Digest]*event, len(keys))
	for n, k := range keys {
		if errs[n] = k.Check(); errs[n] != nil {
			errs[n] = &InvalidKey{k, errs[n]}
			continue
		}
		d := k.Digest()
		if e := known[d]; e != nil {
			e.at = append(e.at, n)
			continue
		}
		if duplicate[n] = s.Known(d); duplicate[n] {
			continue
		}
		e := &event{key: k.Stored(), digest: d, at: []int{n}}
		known[d] = e
		events = append(events, e)
	}
	return events
}

// InvalidKey reports a key that can't be marked.
type InvalidKey struct {
	Key   Key
	Cause error
}

func (e *InvalidKey) Error() string { return "idempotency: " + e.Key.String() + ": " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *InvalidKey) Unwrap() error { return e.Cause }

// Permanent says that trying again is of no use.
func (e *InvalidKey) Permanent() bool { return true }

// settle records the outcome of an event after the commit.
func (s *State) settle(e *event, duplicate []bool, errs []error) {
	for i, n := range e.at {
		errs[n] = e.err
		duplicate[n] = e.err == nil && (!e.fresh || i > 0)
		if duplicate[n] {
			s.Duplicates.Add(1)
		}
	}
	switch {
	case e.err != nil:
	case e.fresh:
		s.Committed(e.digest)
	default:
		s.recent.Add(e.digest)
	}
}

var errNothingToCommit = errors.New("there is nothing to commit")

// pass runs one transaction. It returns the event whose error ended it, if one did.
func (b *batch[T]) pass(ctx context.Context, events []*event, handle func(context.Context, T, []*event) (*event, error)) (failed *event, err error) {
	ctx, hooks := aftercommit.With(ctx)
	sorted := slices.Clone(events)
	slices.SortFunc(sorted, func(a, b *event) int { return Compare(a.key, b.key) })
	keys := make([]Key, len(sorted))
	for i, e := range sorted {
		keys[i] = e.key
	}
	err = b.backend.Transact(ctx, keys, func(tx T, fresh []bool) (err error) {
		for i, e := range sorted {
			e.fresh = fresh[i]
		}
		failed, err = handle(ctx, tx, events)
		return err
	})
	if errors.Is(err, errNothingToCommit) {
		return nil, nil
	}
	if err == nil {
		hooks.Run()
	}
	return failed, err
}

// plainly handles events until one fails.
func (b *batch[T]) plainly(ctx context.Context, tx T, events []*event) (failed *event, err error) {
	err = errNothingToCommit
	for _, e := range events {
		if !e.fresh {
			continue
		}
		if e.err = b.fn(ctx, tx, e.at[0]); e.err != nil {
			return e, e.err
		}
		err = nil
	}
	return nil, err
}

// bySavepoints handles each event in a savepoint, and takes back the marks of
// those that failed.
func (b *batch[T]) bySavepoints(ctx context.Context, tx T, events []*event) (_ *event, err error) {
	var failed []Key
	handled := 0
	for _, e := range events {
		if !e.fresh {
			continue
		}
		if err := b.inSavepoint(ctx, tx, e); err != nil {
			return nil, err
		}
		if e.err == nil {
			handled++
		} else {
			failed = append(failed, e.key)
		}
	}
	if handled == 0 {
		return nil, errNothingToCommit
	}
	if len(failed) > 0 {
		return nil, b.backend.Unmark(ctx, tx, failed)
	}
	return nil, nil
}

// inSavepoint fails only if the transaction can't go on.
func (b *batch[T]) inSavepoint(ctx context.Context, tx T, e *event) error {
	const name = "millrace_event"
	if err := b.backend.Exec(ctx, tx, "SAVEPOINT "+name); err != nil {
		return err
	}
	// After a failure that ended the transaction, as a deadlock on MySQL does, the
	// savepoint is gone too.
	if e.err = b.fn(ctx, tx, e.at[0]); e.err != nil {
		if err := b.backend.Exec(ctx, tx, "ROLLBACK TO SAVEPOINT "+name); err != nil {
			return errors.Join(e.err, err)
		}
	}
	return b.backend.Exec(ctx, tx, "RELEASE SAVEPOINT "+name)
}
