package pgxsaga

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/aftercommit"
	"github.com/millrace-go/millrace/saga/internal/tables"
)

type transition = member[tables.Transition]

// commitGroup commits transitions by one transaction. If the database refuses it,
// because of one of them or because a lock was not to be had, nothing has
// happened and each goes alone, so that one has no influence on the others.
func (c *committer) commitGroup(ctx context.Context, group []*transition) {
	ctx, hooks := aftercommit.With(ctx)
	err := c.sendGroup(ctx, group)
	for _, t := range group {
		if err == nil || undecided(err) {
			t.answer(err)
		} else {
			t.leave()
		}
	}
	if err == nil {
		hooks.Run() // wakes the relay
	}
}

// undecided reports whether an error leaves open whether the transaction was
// committed, or says that there is no connection to try again on.
func undecided(err error) bool {
	var refused *refusal
	if errors.As(err, &refused) {
		return false
	}
	var e *pgconn.PgError
	return !errors.As(err, &e) || e.SeverityUnlocalized != "ERROR"
}

// refusal is an error from before the database was asked.
type refusal struct{ error }

func (c *committer) sendGroup(ctx context.Context, group []*transition) error {
	b := &pgx.Batch{}
	b.Queue(careful)
	committed, err := c.inbox.InBatch(ctx, b, marksOf(group)...)
	if err != nil {
		return &refusal{err}
	}
	queueInstances(b, group)
	if err := publishAll(ctx, c.box.InBatch(b), group); err != nil {
		return &refusal{err}
	}
	if err := c.pool.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	committed()
	return nil
}

// careful is the first statement of a group. It has the others give up on a lock,
// and find the instances by their key, whatever the planner believes about the
// size of the table.
var careful = `SELECT set_config('lock_timeout', '` + strconv.FormatInt(groupPatience.Milliseconds(), 10) + `', true),
	set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
	set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`

func marksOf(group []*transition) []idempotency.Mark {
	all := make([]idempotency.Mark, 0, len(group))
	for _, t := range group {
		if t.item.EventID != "" {
			all = append(all, idempotency.Mark{Consumer: t.item.Consumer, Source: t.item.Source, ID: t.item.EventID})
		}
	}
	return all
}

// queueInstances queues one statement for all transitions that have the same, in
// the order of their keys: groups of several processes lock in that order.
func queueInstances(b *pgx.Batch, group []*transition) {
	sorted := slices.SortedFunc(slices.Values(group), func(a, b *transition) int {
		return cmp.Or(cmp.Compare(a.item.Together, b.item.Together), cmp.Compare(a.item.Args[0].(string), b.item.Args[0].(string)),
			bytes.Compare(a.item.Args[1].([]byte), b.item.Args[1].([]byte)))
	})
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && sorted[n].item.Together == sorted[0].item.Together {
			n++
		}
		b.Queue(sorted[0].item.Together, columns(sorted[:n])...)
		sorted = sorted[n:]
	}
}

// columns turns the arguments of transitions into one array for each.
func columns(group []*transition) []any {
	all := make([]any, len(group[0].item.Args))
	for n, first := range group[0].item.Args {
		switch first.(type) {
		case string:
			all[n] = column[string](group, n)
		case []byte:
			all[n] = column[[]byte](group, n)
		case int64:
			all[n] = column[int64](group, n)
		}
	}
	return all
}

func column[T any](group []*transition, n int) []T {
	all := make([]T, len(group))
	for i, t := range group {
		all[i] = t.item.Args[n].(T)
	}
	return all
}
