package saga_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// calling is a step that calls a function.
func calling(name string, timeout time.Duration, f func(ctx context.Context) error) saga.Step[trace] {
	return saga.Step[trace]{
		Name: name, Timeout: timeout, Compensate: saga.NotNeeded[trace]("it is a test"),
		Do: saga.Call(func(ctx context.Context, _ trace) (string, error) { return name, f(ctx) }, func(s *trace, did string) { s.Did = append(s.Did, did) }),
	}
}

// slowly is a saga of two calls, of which the second does what takes says.
func slowly(timeout time.Duration, takes func(ctx context.Context, attempt int64) error) saga.Definition[trace] {
	var attempts atomic.Int64
	return sagaOf(
		calling("first", timeout, func(context.Context) error { return nil }),
		calling("second", timeout, func(ctx context.Context) error {
			if ctx.Err() != nil { // of a process that has died
				return ctx.Err()
			}
			return takes(ctx, attempts.Add(1))
		}),
	)
}

// serve runs an orchestrator until the function that it returns is called.
func serve(t *testing.T, store saga.Store, d saga.Untyped) (stop func()) {
	t.Helper()
	o, err := saga.NewOrchestrator(store, saga.Config{Logger: discard}, d)
	require.NoError(t, err)
	bus, err := eventbus.Open(t.Context(), "memory:")
	require.NoError(t, err)
	svc := eventbus.NewService("shop", bus, eventbus.Logger(discard))
	o.Attach(svc)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	<-svc.Ready()
	return func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, bus.Close())
	}
}

// dead executes an instance in a process that dies after its first commit, before
// its second call.
func dead(t *testing.T, store saga.Store, d saga.Definition[trace]) {
	t.Helper()
	ctx, die := context.WithCancel(t.Context())
	o, err := saga.NewOrchestrator(mortal{store, die}, saga.Config{Logger: discard}, d)
	require.NoError(t, err)
	_, err = saga.Execute(ctx, o, d, "1", trace{})
	require.ErrorIs(t, err, context.Canceled)
}

// mortal ends a process after a commit.
type mortal struct {
	saga.Store
	die func()
}

func (m mortal) Commit(ctx context.Context, c saga.Commit) error {
	defer m.die()
	return m.Store.Commit(ctx, c)
}

func load(t *testing.T, store saga.Store) saga.Instance {
	t.Helper()
	i, err := store.Load(t.Context(), "s", "1")
	require.NoError(t, err)
	return i
}

// Of several processes one takes up what another has left, within a minute and a
// quarter after the time that the calls may have taken, and not before.
func TestInstancesOfAProcessThatDiedAreTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		d := slowly(10*time.Second, func(context.Context, int64) error { calls.Add(1); return nil })
		store := saga.NewMemoryStore(nowhere{})
		for range 3 {
			defer serve(t, store, d)()
		}
		dead(t, store, d)
		began := time.Now()
		require.Equal(t, began.Add(70*time.Second).UTC(), load(t, store).RecoverAt)
		time.Sleep(70*time.Second - 1)
		synctest.Wait()
		require.Equal(t, saga.Running, load(t, store).Status)
		require.Zero(t, calls.Load())
		time.Sleep(15*time.Second + 1)
		synctest.Wait()
		i := load(t, store)
		require.Equal(t, saga.Completed, i.Status)
		require.Zero(t, i.RecoverAt)
		require.EqualValues(t, 1, calls.Load())
		history, err := store.History(t.Context(), "s", "1")
		require.NoError(t, err)
		require.Len(t, history, 3)
		require.Equal(t, "recover", history[1].Event)
		require.Equal(t, "the process that made the calls has not come back", history[1].Note)
	})
}

// A process that lives is not disturbed, however long its calls take within their
// timeouts.
func TestInstancesOfALivingProcessAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Hour, func(_ context.Context, attempt int64) error {
			require.EqualValues(t, 1, attempt)
			time.Sleep(time.Hour - time.Second)
			return nil
		})
		store := saga.NewMemoryStore(nowhere{})
		defer serve(t, store, d)()
		o, err := saga.NewOrchestrator(store, saga.Config{Logger: discard}, d)
		require.NoError(t, err)
		i, err := saga.Execute(t.Context(), o, d, "1", trace{})
		require.NoError(t, err)
		require.Equal(t, saga.Completed, i.Status)
		require.EqualValues(t, 2, i.Revision)
	})
}

// A process that was only slow, and one that took its instance up, have one
// outcome.
func TestProcessThatComesBackAfterItsInstanceWasTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(saga.NoTimeout, func(_ context.Context, attempt int64) error {
			if attempt == 1 {
				time.Sleep(80 * time.Second)
			} else {
				time.Sleep(20 * time.Second)
			}
			return nil
		})
		store := saga.NewMemoryStore(nowhere{})
		defer serve(t, store, d)()
		o, err := saga.NewOrchestrator(store, saga.Config{Logger: discard}, d)
		require.NoError(t, err)
		_, err = saga.Execute(t.Context(), o, d, "1", trace{})
		require.NoError(t, err)
		synctest.Wait()
		time.Sleep(time.Minute)
		i := load(t, store)
		require.Equal(t, saga.Completed, i.Status)
		s, err := saga.StateOf(d, i)
		require.NoError(t, err)
		require.Equal(t, []string{"first", "second"}, s.Did)
	})
}

// Executing an instance writes no message, and its time to be recovered, which
// databases find it by, changes seldom.
func TestExecuteWritesNoMoreThanItsTransitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		published := &recorder{}
		kept := &keepsCommits{Store: saga.NewMemoryStore(published)}
		takes := func(d time.Duration) func(context.Context) error {
			return func(context.Context) error { time.Sleep(d); return nil }
		}
		d := sagaOf(
			calling("a", time.Minute, takes(0)), calling("b", time.Minute, takes(29*time.Second)),
			calling("c", time.Minute, takes(2*time.Second)), calling("d", time.Minute, takes(0)),
		)
		o, err := saga.NewOrchestrator(kept, saga.Config{Logger: discard}, d)
		require.NoError(t, err)
		began := time.Now()
		_, err = saga.Execute(t.Context(), o, d, "1", trace{})
		require.NoError(t, err)
		require.Empty(t, published.messages)
		var after []time.Duration
		for _, c := range kept.commits {
			require.Empty(t, c.Entry.Emitted)
			if !c.Instance.RecoverAt.IsZero() {
				after = append(after, c.Instance.RecoverAt.Sub(began))
			}
		}
		require.Len(t, kept.commits, 4)
		require.Equal(t, []time.Duration{2 * time.Minute, 2 * time.Minute, 31*time.Second + 2*time.Minute}, after)
	})
}

// keepsCommits remembers what was committed.
type keepsCommits struct {
	saga.Store
	commits []saga.Commit
}

func (s *keepsCommits) Commit(ctx context.Context, c saga.Commit) error {
	s.commits = append(s.commits, c)
	return s.Store.Commit(ctx, c)
}

// The service ends although calls of instances that it has taken up take long, and
// another takes them up again.
func TestServiceEndsWhileItRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Hour, func(ctx context.Context, attempt int64) error {
			if attempt > 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		store := saga.NewMemoryStore(nowhere{})
		stop := serve(t, store, d)
		dead(t, store, d)
		time.Sleep(time.Hour + 75*time.Second)
		synctest.Wait()
		i := load(t, store)
		require.EqualValues(t, 2, i.Revision, "started and taken up")
		began := time.Now()
		stop()
		require.Zero(t, time.Since(began))
		require.Equal(t, i, load(t, store), "the calls were not made")

		defer serve(t, store, d)()
		time.Sleep(time.Hour + 75*time.Second)
		synctest.Wait()
		require.Equal(t, saga.Completed, load(t, store).Status)
	})
}

// refuses is a store that fails as long as it is told to.
type refuses struct {
	saga.Store
	err error
}

func (s *refuses) List(ctx context.Context, q saga.Query) ([]saga.Instance, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Store.List(ctx, q)
}

func TestRecoverOnceTellsWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Second, func(context.Context, int64) error { return nil })
		store := &refuses{Store: saga.NewMemoryStore(nowhere{})}
		dead(t, store, d)
		o, err := saga.NewOrchestrator(store, saga.Config{Logger: discard}, d)
		require.NoError(t, err)
		require.NoError(t, o.Recover(t.Context()))
		require.EqualValues(t, 1, load(t, store).Revision, "it is too early")

		time.Sleep(time.Minute + time.Second)
		store.err = errors.New("the database is down")
		require.EqualError(t, o.Recover(t.Context()), `saga "s": recover: the database is down`)

		store.err = nil
		newer := d
		newer.Version = 2
		another, err := saga.NewOrchestrator(store, saga.Config{Logger: discard}, newer)
		require.NoError(t, err)
		require.ErrorContains(t, another.Recover(t.Context()), `saga "s": instance "1": recover: the instance is of version 1, which this orchestrator has no definition of`)
		require.NoError(t, o.Recover(t.Context()))
		require.Equal(t, saga.Completed, load(t, store).Status)
	})
}

func TestRecoverAfterMustNotBeNegative(t *testing.T) {
	_, err := saga.NewOrchestrator(saga.NewMemoryStore(nowhere{}), saga.Config{RecoverAfter: -1}, sagaOf(slowly(0, nil).Steps...))
	require.ErrorContains(t, err, "RecoverAfter must be positive, got -1ns")
}
