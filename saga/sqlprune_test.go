package saga_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/saga"
)

// fill adds n instances that had their last of revisions transitions some time ago.
func (s stored) fill(t testing.TB, name string, status saga.Status, n int, revisions int, ago time.Duration) {
	t.Helper()
	q := s.db.Dialect.Rebind
	at := time.Now().Add(-ago).UnixMilli()
	resting := int64(1)
	if status == saga.Running || status == saga.Compensating {
		resting = 0
	}
	tx, err := s.db.Begin()
	require.NoError(t, err)
	defer tx.Rollback()
	for i := range n {
		id := []byte(fmt.Sprintf("%s-%s-%d", status, ago, i))
		_, err := tx.Exec(q(`INSERT INTO millrace_saga (saga, id, version, revision, status, state_version, wake_at, created_at, updated_at, rested_at, error, progress, state)
			VALUES (?, ?, 1, ?, ?, 1, 0, 0, ?, ?, '', ?, ?)`), name, id, revisions, string(status), at+int64(i/9), resting*(at+int64(i/9)), []byte("{}"), []byte("{}"))
		require.NoError(t, err)
		for from := 0; from < revisions; from += 200 {
			var args []any
			for revision := from; revision < min(revisions, from+200); revision++ {
				args = append(args, name, id, revision+1, []byte{}, []byte("{}"))
			}
			rows := strings.TrimSuffix(strings.Repeat("(?, ?, ?, 0, '', ?, '', '', 'null', '', ?),", len(args)/5), ",")
			_, err := tx.Exec(q(`INSERT INTO millrace_saga_history (saga, id, revision, at, event, event_id, from_position, to_position, emitted, note, state) VALUES `+rows), args...)
			require.NoError(t, err)
		}
	}
	require.NoError(t, tx.Commit())
}

const day = 24 * time.Hour

func TestPruneDeletesWhatEndedLongAgo(t *testing.T) {
	eachStored(t, func(t *testing.T, s stored) {
		s.fill(t, "a", saga.Completed, 230, 1, 91*day)
		s.fill(t, "a", saga.Compensated, 4, 600, 91*day) // two of them are a step
		s.fill(t, "b", saga.Completed, 1, 2, 91*day)
		for _, status := range []saga.Status{saga.Completed, saga.Compensated} {
			s.fill(t, "a", status, 3, 2, 89*day)
		}
		for _, status := range []saga.Status{saga.Running, saga.Compensating, saga.Stuck} {
			s.fill(t, "c", status, 2, 2, 1000*day)
		}
		n, err := s.Prune(t.Context(), 90*day)
		require.NoError(t, err)
		require.EqualValues(t, 235, n)
		require.Equal(t, 12, countOf(t, s.db, "millrace_saga"))
		require.Equal(t, 24, countOf(t, s.db, "millrace_saga_history"))
		n, err = s.Prune(t.Context(), 90*day)
		require.NoError(t, err)
		require.Zero(t, n)
	})
}

func TestPrunersAndTransitionsDoNotHinderEachOther(t *testing.T) {
	eachStored(t, func(t *testing.T, s stored) {
		const old = 450
		s.fill(t, "s", saga.Completed, old, 2, 91*day)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var pruned [3]int64
		var wg sync.WaitGroup
		for n := range pruned {
			wg.Go(func() {
				var err error
				if pruned[n], err = s.Prune(ctx, 90*day); err != nil {
					t.Error(err)
				}
			})
		}
		for n := range 4 {
			wg.Go(func() {
				for revision := range int64(15) {
					if err := s.Commit(ctx, transition(fmt.Sprint(n), revision+1)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		last, err := s.Prune(ctx, 90*day) // what one had locked while the others ended
		require.NoError(t, err)
		require.EqualValues(t, old, pruned[0]+pruned[1]+pruned[2]+last)
		require.Equal(t, 4, countOf(t, s.db, "millrace_saga"))
		require.Equal(t, 4*15, countOf(t, s.db, "millrace_saga_history"))
	})
}

func TestRunPrunesWhatTheRetentionDoesNotKeep(t *testing.T) {
	db := testdb.New(t, saga.SQLite)
	s := newStored(t, db, saga.Retention(time.Hour))
	s.fill(t, "s", saga.Completed, 5, 1, 2*time.Hour)
	s.fill(t, "s", saga.Completed, 4, 1, 30*time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	require.Eventually(t, func() bool { return countOf(t, db, "millrace_saga") == 4 }, 30*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	require.Equal(t, 4, countOf(t, db, "millrace_saga_history"))
}

// An ended instance that goes on, as by an operator's Compensate, is not deleted
// under it.
func TestPruneLeavesWhatGoesOn(t *testing.T) {
	eachStored(t, func(t *testing.T, s stored) {
		c := transition("1", 1)
		c.Instance.Status, c.Instance.Updated = saga.Completed, time.Now().Add(-91*day)
		require.NoError(t, s.Commit(t.Context(), c))
		again := transition("1", 2)
		again.Instance.Status = saga.Compensating
		require.NoError(t, s.Commit(t.Context(), again))
		n, err := s.Prune(t.Context(), 90*day)
		require.NoError(t, err)
		require.Zero(t, n)
		entries, err := s.History(t.Context(), "s", "1")
		require.NoError(t, err)
		require.Len(t, entries, 2)
	})
}
