package saga_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

func TestSubSagas(t *testing.T) {
	for name, tt := range map[string]struct {
		child, last func() error
		want, of    saga.Status
		log         []string
	}{
		"completed":                       {nil, nil, saga.Completed, saga.Completed, []string{"a", "inner", "z"}},
		"child fails":                     {fails(errRefused), nil, saga.Compensated, saga.Compensated, []string{"a", "undo a"}},
		"child is compensated afterwards": {nil, fails(errRefused), saga.Compensated, saga.Compensated, []string{"a", "inner", "undo inner", "undo a"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log []string
				child := sagaOf(does("inner", &log, tt.child))
				child.Name = "child"
				parent := sagaOf(
					does("a", &log, nil),
					saga.Step[trace]{Name: "sub", Do: saga.Child(child, func(s trace) trace { return trace{Count: s.Count} }),
						Success: saga.Succeeded(child, func(s *trace, c trace) { s.Count = 10 * c.Count }), Timeout: time.Hour},
					does("z", &log, tt.last),
				)
				require.NoError(t, saga.Validate(parent))
				r := newRig(t, parent, child).start()
				require.NoError(t, saga.Start(t.Context(), r.h.Bus(), parent, "1", trace{}))
				r.pass(2 * time.Hour)
				r.requireStatus(tt.want, "s", "1")
				r.requireStatus(tt.of, "child", "1/sub")
				require.Equal(t, tt.log, log)
				if tt.want == saga.Completed {
					require.Equal(t, 21, state(r, parent, "1").Count)
				}
			})
		})
	}
}

// A child that was compensated has ended; behind the pivot another one begins.
func TestSubSagaRefusedBehindThePivotIsStartedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		child := sagaOf(does("inner", &log, failsFirst(2, errRefused)))
		child.Name = "child"
		parent := sagaOf(saga.Pivot[trace]{}, saga.Step[trace]{
			Name: "sub", Do: saga.Child(child, func(s trace) trace { return s }), Success: saga.Succeeded[trace](child, nil), Timeout: time.Hour,
		})
		r := newRig(t, parent, child).start()
		require.NoError(t, saga.Start(t.Context(), r.h.Bus(), parent, "1", trace{}))
		r.pass(time.Minute)
		r.requireStatus(saga.Compensated, "child", "1/sub")
		r.requireStatus(saga.Compensated, "child", "1/sub:2")
		r.requireStatus(saga.Completed, "child", "1/sub:3")
		r.requireStatus(saga.Completed, "s", "1")
	})
}

// A sub-saga that is no longer stored when its parent is compensated has not been
// undone because nothing is known of it.
func TestSubSagaThatIsNoLongerKeptIsNotTakenForUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		child := sagaOf(does("inner", &log, nil))
		child.Name = "child"
		parent := sagaOf(
			saga.Step[trace]{Name: "sub", Do: saga.Child(child, func(s trace) trace { return s }), Success: saga.Succeeded[trace](child, nil), Timeout: time.Hour},
			saga.Step[trace]{Name: "wait", Success: saga.Signal[trace, struct{}]("go on", nil), Timeout: 365 * 24 * time.Hour},
		)
		r := newRig(t, parent).start()
		children := func() (*saga.Orchestrator, func()) { // in a service with a database of its own
			o, err := saga.NewOrchestrator(saga.NewMemoryStore(r.h.Bus()), saga.Config{}, child)
			require.NoError(t, err)
			svc := eventbus.NewService("children", r.h.Bus())
			o.Attach(svc)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- svc.Run(ctx) }()
			<-svc.Ready()
			return o, func() { stop(); require.NoError(t, <-ended) }
		}
		_, stop := children()
		require.NoError(t, saga.Start(t.Context(), r.h.Bus(), parent, "1", trace{}))
		synctest.Wait()
		require.Equal(t, []string{"inner"}, log)
		stop()
		o, stop := children() // all is deleted
		defer stop()

		require.NoError(t, r.o.Cancel(t.Context(), "s", "1", "test"))
		r.pass(time.Hour)
		i, err := o.Get(t.Context(), "child", "1/sub")
		require.NoError(t, err)
		require.Equal(t, saga.Stuck, i.Status, "however often the parent asks")
		require.Contains(t, i.Error, "no longer stored")
		require.ErrorIs(t, o.Retry(t.Context(), "child", "1/sub"), saga.ErrNotPossible)
		r.requireStatus(saga.Stuck, "s", "1")

		require.NoError(t, o.Compensate(t.Context(), "child", "1/sub", "undone by hand"))
		synctest.Wait()
		require.NoError(t, r.o.Retry(t.Context(), "s", "1"))
		r.pass(time.Hour)
		r.requireStatus(saga.Compensated, "s", "1")
		require.Equal(t, []string{"inner"}, log)
	})
}
