package resilience

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestValuesThroughPoliciesFromElsewhere(t *testing.T) {
	hedge := Must(NewHedge(HedgeConfig{After: time.Second}))
	twice := PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		_ = fn(ctx)
		return fn(ctx)
	})
	for _, c := range []struct {
		name string
		p    Policy
		errs []error // of the attempts, which take 1.5 s each
		want int
	}{
		{"one after the other", twice, []error{nil, nil}, 2},
		{"the second fails", twice, []error{nil, errDown}, 2},
		{"side by side", PolicyFunc(hedge.Do), []error{nil, nil}, 1},
		{"side by side, the first fails", PolicyFunc(hedge.Do), []error{errDown, nil}, 2},
		{"within a pipeline", Must(NewPipeline("p", PolicyFunc(hedge.Do))), []error{nil, nil}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				v, err := Get(t.Context(), c.p, func(context.Context) (int, error) {
					n := int(calls.Add(1))
					time.Sleep(1500 * time.Millisecond) // longer than the hedge waits, and without a look at the context
					return n, c.errs[n-1]
				})
				require.Equal(t, c.want, v)
				require.Equal(t, c.errs[c.want-1], err)
			})
		})
	}
}

// counted is a pipeline with something around it.
type counted struct {
	*Pipeline
	calls *int
}

func (c counted) Do(ctx context.Context, fn func(context.Context) error) error {
	*c.calls++
	return c.Pipeline.Do(ctx, fn)
}

func TestPoliciesThatEmbedOneKeepTheirDo(t *testing.T) {
	calls := 0
	c := counted{Must(NewPipeline("inner")), &calls}
	v, err := Get(t.Context(), c, func(context.Context) (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, v)
	require.Equal(t, 1, calls)
	require.NoError(t, Must(NewPipeline("outer", c)).Do(t.Context(), returning(nil)))
	require.Equal(t, 2, calls)
}
