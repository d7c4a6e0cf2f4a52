package pgxsaga_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/pgxsaga"
)

// lock has another transaction hold the row of an instance until it is released.
func (r rig) lock(t *testing.T, id string) (release func()) {
	t.Helper()
	tx, err := r.db.Begin()
	require.NoError(t, err)
	_, err = tx.Exec("SELECT 1 FROM millrace_saga WHERE id = $1::text::bytea FOR UPDATE", id)
	require.NoError(t, err)
	return func() { require.NoError(t, tx.Rollback()) }
}

// start commits in another goroutine.
func (r rig) start(t *testing.T, c saga.Commit) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- r.Commit(t.Context(), c) }()
	return ended
}

func (r rig) transactions(t *testing.T, revision int) (n int) {
	t.Helper()
	require.NoError(t, r.db.QueryRow("SELECT count(DISTINCT xmin::text) FROM millrace_saga_history WHERE revision = $1 AND id <> 'locked'", revision).Scan(&n))
	return n
}

const crowd = 20

// commitCrowd commits a transition of each of the crowd while that of an instance
// is under way that somebody else has locked.
func (r rig) commitCrowd(t *testing.T, revision int64, more ...saga.Commit) (errs []error) {
	t.Helper()
	pgxsaga.InGroupsOf(r.Store, crowd+len(more))
	release := r.lock(t, "locked")
	locked := r.start(t, transition("locked", 2))
	require.Eventually(t, func() bool {
		var waiting int
		require.NoError(t, r.db.QueryRow("SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&waiting))
		return waiting > 0
	}, 10*time.Second, time.Millisecond)
	all := append([]saga.Commit(nil), more...)
	for n := range crowd {
		all = append(all, transition(fmt.Sprint(n), revision))
	}
	errs = make([]error, len(all))
	var wg sync.WaitGroup
	for n, c := range all {
		wg.Go(func() { errs[n] = r.Commit(t.Context(), c) })
	}
	wg.Wait() // although the first is not done
	select {
	case err := <-locked:
		require.FailNow(t, "the lock was ignored", "%v", err)
	default:
	}
	release()
	require.NoError(t, <-locked)
	return errs
}

func TestWhatComesMeanwhileSharesACommit(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.Commit(t.Context(), transition("locked", 1)))
	for _, err := range r.commitCrowd(t, 1) {
		require.NoError(t, err)
	}
	require.LessOrEqual(t, r.transactions(t, 1), 3)
	messages := r.published(t)
	require.Len(t, messages, 2*(crowd+2))
	for n := range crowd {
		id := fmt.Sprint(n)
		i, err := r.Load(t.Context(), "s", id)
		require.NoError(t, err)
		require.EqualValues(t, 1, i.Revision)
		require.ErrorIs(t, r.Commit(t.Context(), transition(id, 1)), saga.ErrDuplicate)
	}
}

// What is wrong with one transition of a group is nobody else's.
func TestOneOfAGroupFailsAlone(t *testing.T) {
	noTopic := transition("no topic", 1)
	noTopic.Messages[0].Topic = "no topic"
	for name, bad := range map[string]struct {
		c    saga.Commit
		want func(t *testing.T, err error)
	}{
		"conflict":         {transition("new", 3), func(t *testing.T, err error) { require.ErrorIs(t, err, saga.ErrConflict) }},
		"exists":           {withEvent(transition("there", 1), "other"), func(t *testing.T, err error) { require.ErrorIs(t, err, saga.ErrConflict) }},
		"duplicate":        {withEvent(transition("new", 1), "e-there-1"), func(t *testing.T, err error) { require.ErrorIs(t, err, saga.ErrDuplicate) }},
		"same event":       {withEvent(transition("new", 1), "e-7-1"), nil},
		"refused message":  {noTopic, func(t *testing.T, err error) { require.True(t, eventbus.IsPermanent(err), err) }},
		"refused mark":     {withConsumer(transition("new", 1), ""), func(t *testing.T, err error) { require.True(t, eventbus.IsPermanent(err), err) }},
		"refused revision": {transition("new", 0), func(t *testing.T, err error) { require.True(t, eventbus.IsPermanent(err), err) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for _, id := range []string{"locked", "there"} {
				require.NoError(t, r.Commit(t.Context(), transition(id, 1)))
			}
			errs := r.commitCrowd(t, 1, bad.c)
			if bad.want == nil { // one of the two
				require.True(t, (errs[0] == nil) != (errs[8] == nil))
				errs[8] = nil
			} else {
				bad.want(t, errs[0])
			}
			for _, err := range errs[1:] {
				require.NoError(t, err)
			}
		})
	}
}

func withEvent(c saga.Commit, id string) saga.Commit {
	c.EventID, c.Entry.EventID = id, id
	return c
}

func withConsumer(c saga.Commit, name string) saga.Commit {
	c.Consumer = name
	return c
}

// An instance that somebody has locked is not waited for by others, also when it
// is in the middle of a group.
func TestALockedInstanceHoldsUpNobody(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{"locked", "also locked"} {
		require.NoError(t, r.Commit(t.Context(), transition(id, 1)))
	}
	release := r.lock(t, "also locked")
	ctx, cancel := context.WithCancel(t.Context())
	stuck := make(chan error, 1)
	held := r.lock(t, "locked")
	first := r.start(t, transition("locked", 2))
	go func() { stuck <- r.Commit(ctx, transition("also locked", 2)) }()
	var wg sync.WaitGroup
	for n := range crowd {
		wg.Go(func() {
			for revision := range int64(3) {
				if err := r.Commit(t.Context(), transition(fmt.Sprint(n), revision+1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	require.ErrorIs(t, <-stuck, context.Canceled)
	held()
	release()
	require.NoError(t, <-first)
}

func TestInstancesAreLoadedTogether(t *testing.T) {
	eachMode(t, func(t *testing.T, r rig) {
		for n := range crowd {
			require.NoError(t, r.Commit(t.Context(), transition(fmt.Sprint(n), 1)))
		}
		var wg sync.WaitGroup
		for range 5 {
			for n := range 2 * crowd {
				wg.Go(func() {
					id := fmt.Sprint(n)
					i, err := r.Load(t.Context(), "s", id)
					switch {
					case n >= crowd:
						if err != saga.ErrNoInstance { //nolint:errorlint // as it is
							t.Errorf("%s: %v", id, err)
						}
					case err != nil || i.ID != id || i.Revision != 1 || string(i.State) != `{"total":100}`:
						t.Errorf("%s: %+v, %v", id, i, err)
					}
				})
			}
		}
		wg.Wait()
	})
}
