package saga_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/saga"
)

// The tests of this file are named after defects of respected systems.

// meddler is a store in which another process changes instances at the worst
// moment.
type meddler struct {
	saga.Store
	before func(c saga.Commit) error
}

func (m *meddler) Commit(ctx context.Context, c saga.Commit) error {
	if err := m.before(c); err != nil {
		return err
	}
	return m.Store.Commit(ctx, c)
}

// Conflict retry in a stale scope loses updates or never resolves
// (graphql-platform#10327, wolverine#3414), or consumes the retry budget
// (grabbit#52).
func TestTrapConflictIsRetriedInAStaleScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		var calls int
		d := saga.Definition[trace]{Name: "s", Version: 1, Steps: []saga.Node[trace]{
			saga.Step[trace]{Name: "count", Do: saga.Call(func(context.Context, trace) (int, error) { calls++; return 1, nil }, func(s *trace, n int) { s.Count += n }),
				Timeout: time.Minute, Compensate: saga.NotNeeded[trace]("a test")},
			saga.Step[trace]{Name: "wait", Success: saga.Signal("go", func(s *trace, n int) { s.Count += n }), Timeout: saga.NoTimeout},
			saga.Step[trace]{Name: "wait again", Success: saga.Signal("on", func(s *trace, n int) { s.Count += n }), Timeout: saga.NoTimeout},
		}}
		memory := saga.NewMemoryStore(h.Bus())
		other, err := saga.NewOrchestrator(memory, saga.Config{CacheSize: -1}, d)
		require.NoError(t, err)
		meddle := 0
		store := &meddler{Store: memory}
		store.before = func(saga.Commit) error {
			if meddle > 0 {
				meddle--
				return other.Signal(t.Context(), "s", "1", "on", 100) // kept, since nothing waits for it yet
			}
			return nil
		}
		o, err := saga.NewOrchestrator(store, saga.Config{}, d)
		require.NoError(t, err)
		_, err = saga.Execute(t.Context(), o, d, "1", trace{})
		require.NoError(t, err)
		meddle = 30
		require.NoError(t, o.Signal(t.Context(), "s", "1", "go", 10))
		i, err := o.Get(t.Context(), "s", "1")
		require.NoError(t, err)
		s, err := saga.StateOf(d, i)
		require.NoError(t, err)
		require.Equal(t, saga.Completed, i.Status)
		require.Equal(t, 111, s.Count, "one of each, nothing lost, nothing twice")
		require.Equal(t, 1, calls)
	})
}

// A hundred failing timers starve all others (occurrent#1028).
func TestTrapFailingTimersStarveOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		late := saga.Definition[trace]{Name: "s", Version: 1,
			States: []saga.State[trace]{
				{Name: "a", On: []saga.Transition[trace]{
					{Event: saga.Signal("begin", func(s *trace, _ int) {}), Do: []saga.Effect[trace]{saga.Schedule[trace]("t", time.Minute)}},
					{Event: saga.Timeout[trace]("t"), GoTo: "end"},
				}},
				{Name: "end", Final: saga.Completed},
			}}
		memory := saga.NewMemoryStore(h.Bus())
		store := &meddler{Store: memory, before: func(c saga.Commit) error {
			if strings.HasPrefix(c.Instance.ID, "bad") && c.Entry.Event == "timeout:t" {
				return errors.New("row is corrupt")
			}
			return nil
		}}
		o, err := saga.NewOrchestrator(store, saga.Config{Logger: discard}, late)
		require.NoError(t, err)
		svc := eventbus.NewService("orders", h.Bus(), eventbus.Logger(discard))
		o.Attach(svc)
		h.Start(svc)
		for i := range 110 {
			id := fmt.Sprintf("bad%d", i)
			if i >= 100 {
				id = fmt.Sprintf("good%d", i)
			}
			_, err := saga.Execute(t.Context(), o, late, id, trace{})
			require.NoError(t, err)
			require.NoError(t, o.Signal(t.Context(), "s", id, "begin", 0))
		}
		time.Sleep(time.Minute + 500*time.Millisecond)
		synctest.Wait()
		n, err := o.Count(t.Context(), "s")
		require.NoError(t, err)
		require.EqualValues(t, 10, n[saga.Completed], "half a second after they were due")
	})
}

// Replies stay unprocessed after a crash until another saga starts
// (tram-sagas#40).
func TestTrapRepliesWaitForAnotherSagaAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		store := saga.NewMemoryStore(h.Bus())
		d := fulfilment(func(context.Context, order) (string, error) { return "p", nil })
		run := func() (*saga.Orchestrator, func()) {
			o, err := saga.NewOrchestrator(store, saga.Config{}, d)
			require.NoError(t, err)
			svc := eventbus.NewService("orders", h.Bus())
			o.Attach(svc)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- svc.Run(ctx) }()
			<-svc.Ready()
			return o, func() { stop(); require.NoError(t, <-ended) }
		}
		_, stop := run()
		require.NoError(t, placed.Publish(t.Context(), h.Bus(), orderPlaced{"1", 7}))
		synctest.Wait()
		stop()
		require.NoError(t, reserved.Publish(t.Context(), h.Bus(), stockReserved{"1"}))
		o, stop := run()
		synctest.Wait()
		i, err := o.Get(t.Context(), "fulfilment", "1")
		require.NoError(t, err)
		require.Equal(t, saga.Completed, i.Status)
		stop()
	})
}

// Instances are lost when a Go type is renamed.
func TestTrapInstancesLostAfterARename(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type renamed order
		store := saga.NewMemoryStore(eventbustest.New(t).Bus())
		ask := func() saga.Event[order] { return saga.Signal[order, int]("go", nil) }
		before := saga.Definition[order]{Name: "s", Version: 1, Steps: []saga.Node[order]{saga.Step[order]{Name: "wait", Success: ask(), Timeout: saga.NoTimeout}}}
		after := saga.Definition[renamed]{Name: "s", Version: 1, Steps: []saga.Node[renamed]{saga.Step[renamed]{Name: "wait", Success: saga.Signal[renamed, int]("go", nil), Timeout: saga.NoTimeout}}}
		o, err := saga.NewOrchestrator(store, saga.Config{}, before)
		require.NoError(t, err)
		require.NoError(t, o.Check(t.Context()))
		_, err = saga.Execute(t.Context(), o, before, "1", order{Total: 7})
		require.NoError(t, err)
		o, err = saga.NewOrchestrator(store, saga.Config{}, after)
		require.NoError(t, err)
		require.NoError(t, o.Check(t.Context()))
		require.NoError(t, o.Signal(t.Context(), "s", "1", "go", 0))
		i, err := o.Get(t.Context(), "s", "1")
		require.NoError(t, err)
		require.Equal(t, saga.Completed, i.Status)
		s, err := saga.StateOf(after, i)
		require.NoError(t, err)
		require.Equal(t, 7, s.Total)
	})
}

// An operator's "retry all" becomes the second outage (ServicePulse#2764).
func TestTrapRetryAllIsTheSecondOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		broken := true
		var times []time.Time
		d := sagaOf(saga.Pivot[trace]{}, saga.Step[trace]{Name: "call", Do: saga.Call(func(context.Context, trace) (int, error) {
			times = append(times, time.Now())
			if broken {
				return 0, errRefused
			}
			return 0, nil
		}, nil), Timeout: time.Minute, Retry: saga.Retry{Attempts: 1}})
		o, err := saga.NewOrchestrator(saga.NewMemoryStore(h.Bus()), saga.Config{Logger: discard}, d)
		require.NoError(t, err)
		const instances = 50
		for i := range instances {
			_, err := saga.Execute(t.Context(), o, d, fmt.Sprint(i), trace{})
			require.NoError(t, err)
		}
		times = nil
		n, err := o.RetryAll(t.Context(), "s", 10)
		require.ErrorIs(t, err, saga.ErrStuckAgain)
		require.Equal(t, 5, n, "it notices that nothing is mended")

		broken, times = false, nil
		n, err = o.RetryAll(t.Context(), "s", 10)
		require.NoError(t, err)
		require.Equal(t, instances, n)
		require.GreaterOrEqual(t, times[len(times)-1].Sub(times[0]), 4900*time.Millisecond, "ten a second")
		counts, err := o.Count(t.Context(), "s")
		require.NoError(t, err)
		require.EqualValues(t, instances, counts[saga.Completed])
	})
}

// Two sagas of one service may ask the same participant: an answer is the one's
// that it was given to.
func TestAnswersToAnotherSagaAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fulfilment(func(context.Context, order) (string, error) { return "p", nil })
		d.StartedBy = saga.Event[order]{}
		other := d
		other.Name = "returns"
		r := newRig(t, d, other)
		on(r, reserve, func(ctx context.Context, id string, e eventbus.Event[reserveStock]) error {
			return reserved.Publish(ctx, r.h.Bus(), stockReserved{id}, saga.Answering(e.Metadata))
		})
		r.start()
		require.NoError(t, saga.Start(t.Context(), r.h.Bus(), d, "1", order{}))
		r.pass(time.Hour)
		r.requireStatus(saga.Completed, "fulfilment", "1")
		require.Empty(t, r.h.DeadLetters())
	})
}

// An event may come before its instance, but not for ever.
func TestLaterEndsInADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fulfilment(func(context.Context, order) (string, error) { return "p", nil })
		step := d.Steps[0].(saga.Step[order])
		step.Success = step.Success.IfMissing(saga.Later)
		d.Steps[0] = step
		r := newRig(t, d)
		on(r, reserve, func(context.Context, string, eventbus.Event[reserveStock]) error { return nil })
		r.start()
		require.NoError(t, reserved.Publish(t.Context(), r.h.Bus(), stockReserved{"soon"}))
		require.NoError(t, reserved.Publish(t.Context(), r.h.Bus(), stockReserved{"never"}))
		r.pass(time.Minute)
		require.NoError(t, placed.Publish(t.Context(), r.h.Bus(), orderPlaced{"soon", 7}))
		r.pass(time.Hour)
		r.requireStatus(saga.Completed, "fulfilment", "soon")
		require.Len(t, r.h.DeadLetters(), 1)
		require.Contains(t, r.h.DeadLetters()[0].Cause, saga.ErrNoInstance.Error())
	})
}
