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
}

// Transition is a saga.Commit as it is executed.
type Transition struct {
	Consumer, Source, EventID string

	// Statement writes the instance and its history, of PostgreSQL. It fails with
	// SQLSTATE 22012, a division by zero, if the instance has another revision.
	Statement string
	Args      []any
	// Publish publishes the messages with ctx.
	Publish func(ctx context.Context, to message.Publisher) error
}
