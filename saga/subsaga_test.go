package saga_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

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
