package marks

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/internal/dialect"
)

// Config is what the options of an inbox set.
type Config struct {
	Prefix    string
	Retention time.Duration
	Logger    *slog.Logger
	Recent    int
	// Expose, if set, is called with the state of the inbox that was made, by which
	// one of another driver shares it.
	Expose func(*State)
}

// State is what the inboxes of one table share within a process. It is safe for
// concurrent use.
type State struct {
	Statements

	recent     *Recent
	suspicious atomic.Bool

	Handled, Duplicates, Remembered, Pruned atomic.Int64
}

// NewState returns the state of a new inbox.
func NewState(d dialect.Dialect, c Config) *State {
	s := &State{Statements: For(d, c.Prefix), recent: NewRecent(c.Recent)}
	s.suspicious.Store(true)
	return s
}

// Remembers reports whether a mark is known to be committed, from memory.
func (s *State) Remembers(d Digest) bool { return s.recent.Has(d) }

// Known is Remembers for an event that is dropped if it is.
func (s *State) Known(d Digest) bool {
	if !s.Remembers(d) {
		return false
	}
	s.Duplicates.Add(1)
	s.Remembered.Add(1)
	return true
}

// Suspects says whether to look for a mark before a transaction is begun: one
// round trip, which saves those of a transaction if it is there. Duplicates come
// in runs, as after a restart, so one raises suspicion, and an event that is new
// ends it. A process starts suspicious.
func (s *State) Suspects(redelivered bool) bool { return redelivered || s.suspicious.Load() }

// Fresh is told that an event which was suspected is new.
func (s *State) Fresh() { s.suspicious.Store(false) }

// Duplicate is told of a mark that was found in the database.
func (s *State) Duplicate(d Digest) {
	s.suspicious.Store(true)
	s.Duplicates.Add(1)
	s.recent.Add(d)
}

// Committed is told that a mark and its effects were committed.
func (s *State) Committed(d Digest) {
	s.Handled.Add(1)
	s.recent.Add(d)
}

// IsDuplicate reports whether err, of Mark or Strict, says that the mark is there.
func (s *State) IsDuplicate(err error) bool { return s.Dialect.IsDuplicateKey(err) }

// Explain adds to an error of the database what to do about it.
func (s *State) Explain(err error) error {
	if s.Dialect.IsMissingTable(err) {
		return fmt.Errorf("%w: call Migrate, or apply Schema, before the inbox is used", err)
	}
	return err
}
