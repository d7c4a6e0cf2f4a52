package saga_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/faultdb"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/saga"
)

// An error, a lost answer, or the end of the process at any statement of a
// transition leaves all of it or nothing, and delivering the event again leaves
// all of it, once.
func TestFaultsLeaveAllOrNothing(t *testing.T) {
	eachStored(t, func(t *testing.T, s stored) {
		for revision := range int64(2) { // the first transition, and a later one
			statements := s.statementsOf(t, revision+1)
			require.GreaterOrEqual(t, statements, 5, "begin, mark, instance, message, commit")
			for n := range statements {
				for _, fault := range []faultdb.Fault{faultdb.FailBefore, faultdb.FailAfter, faultdb.KillBefore, faultdb.KillAfter} {
					s.clear(t)
					for before := range revision {
						require.NoError(t, s.Commit(t.Context(), transition("1", before+1)))
					}
					p, op := s.process(t, n, fault)
					err := p.store.Commit(t.Context(), transition("1", revision+1))
					what := fault.String() + " " + *op
					require.True(t, errors.Is(err, faultdb.ErrInjected) || errors.Is(err, faultdb.ErrKilled), "%s: %v", what, err)
					require.NoError(t, p.Close())

					committed := s.holds(t, revision+1, what)
					require.Equal(t, strings.HasPrefix(*op, "commit") && (fault == faultdb.FailAfter || fault == faultdb.KillAfter), committed, what)
					again := s.Commit(t.Context(), transition("1", revision+1))
					if committed {
						require.ErrorIs(t, again, saga.ErrDuplicate, what)
					} else {
						require.NoError(t, again, what)
					}
					require.True(t, s.holds(t, revision+1, what))
				}
			}
		}
	})
}

// holds reports whether the transition to revision is there, and demands that it
// is there as a whole or not at all.
func (s stored) holds(t *testing.T, revision int64, what string) bool {
	t.Helper()
	want := int(revision)
	if i, err := s.Load(t.Context(), "s", "1"); err != nil || i.Revision != revision {
		want--
	}
	for _, table := range []string{"millrace_inbox", "millrace_saga_history", "millrace_outbox"} {
		require.Equal(t, want, countOf(t, s.db, table), "%s: rows of %s", what, table)
	}
	return want == int(revision)
}

func (s stored) clear(t *testing.T) {
	t.Helper()
	for _, table := range tableNames {
		_, err := s.db.Exec("DELETE FROM " + table)
		require.NoError(t, err)
	}
}

// life is a process with a store of its own.
type life struct {
	*faultdb.Process
	store *saga.SQLStore
}

// process has a fault happen at its nth statement, and says which it was.
func (s stored) process(t *testing.T, nth int, fault faultdb.Fault) (p life, op *string) {
	t.Helper()
	op = new(string)
	n := -1
	decide := func(name string) faultdb.Fault {
		if strings.HasPrefix(name, "query ") {
			return faultdb.None // the inbox's look before the transaction
		}
		if n++; n != nth {
			return faultdb.None
		}
		*op = name
		return fault
	}
	dsn := s.db.DSN
	if s.db.Dialect == saga.MySQL {
		dsn += "?interpolateParams=true" // else a statement is tried, refused by the driver and prepared
	}
	process, err := faultdb.Open(s.db.DB.Driver(), dsn, decide)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, process.Close()) })
	box, inbox := outbox.New(process.DB(), s.db.Dialect), idempotency.NewInbox(process.DB(), s.db.Dialect)
	return life{process, saga.NewSQLStore(process.DB(), s.db.Dialect, box, inbox)}, op
}

// statementsOf counts the statements of a transition that goes well.
func (s stored) statementsOf(t *testing.T, revision int64) (n int) {
	t.Helper()
	s.clear(t)
	for before := range revision - 1 {
		require.NoError(t, s.Commit(t.Context(), transition("1", before+1)))
	}
	for n = 0; ; n++ {
		p, op := s.process(t, n, faultdb.FailBefore)
		err := p.store.Commit(t.Context(), transition("1", revision))
		require.NoError(t, p.Close())
		if *op == "" {
			require.NoError(t, err)
			return n
		}
		require.Error(t, err, *op)
	}
}
