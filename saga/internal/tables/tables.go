// Package tables is what saga's SQLStore shares with the stores that commit by
// another driver.
package tables

import (
	"context"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Config is what the options of a store set.
type Config struct {
	Prefix    string
	Retention time.Duration
	Logger    *slog.Logger
	// Commit, if set, commits in place of the SQLStore. It returns saga.ErrConflict
	// and saga.ErrDuplicate as they are.
	Commit func(ctx context.Context, t Transition) error
	// Load, if set, reads an instance in place of the SQLStore.
	Load func(ctx context.Context, l Lookup) (found bool, err error)
}

// Transition is a saga.Commit as it is executed, by PostgreSQL.
type Transition struct {
	Consumer, Source, EventID string

	// Statement writes the instance and its history. It fails with SQLSTATE 22012, a
	// division by zero, if the instance has another revision.
	Statement string
	Args      []any
	// Together is Statement for several transitions, whose arguments are arrays. It
	// fails unless all of the instances have the revisions before.
	Together string
	// Publish publishes the messages with ctx, topic by topic in order.
	Publish func(ctx context.Context, to message.Publisher) error
}

// Lookup asks for an instance.
type Lookup struct {
	Saga string
	ID   []byte
	// Statement returns the columns of Row for Saga and ID. Together does so for
	// arrays of both, behind the place in them, and leaves out what is not there.
	Statement, Together string
	Row                 *Row // is filled in
}

// Row is an instance as it is stored, in the order of the columns. Times are Unix
// milliseconds, 0 for none.
type Row struct {
	Saga                   string
	ID                     []byte
	Version                int
	Revision               int64
	Status                 string
	StateVersion           int
	Wake, Created, Updated int64
	Error, Progress, State []byte
	Rested                 int64
}

// Columns are what to scan a row into.
func (r *Row) Columns() []any {
	return []any{&r.Saga, &r.ID, &r.Version, &r.Revision, &r.Status, &r.StateVersion, &r.Wake, &r.Created, &r.Updated, &r.Error, &r.Progress, &r.State, &r.Rested}
}
