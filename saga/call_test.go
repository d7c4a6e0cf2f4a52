package saga_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/saga"
)

// hedged is a policy that makes two attempts, of which the first succeeds, and a
// third that goes on when it has returned.
type hedged struct{ left chan struct{} }

func (p hedged) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	err := fn(ctx)
	_ = fn(ctx)
	go func() {
		defer close(p.left)
		_ = fn(ctx)
	}()
	return err
}

func TestFirstSuccessOfAPolicyCounts(t *testing.T) {
	var attempts atomic.Int64
	charge := func(context.Context, order) (string, error) {
		if attempts.Add(1) == 1 {
			return "the one that counts", nil
		}
		return "", errors.New("lost the race")
	}
	policy := hedged{make(chan struct{})}
	d := saga.Definition[order]{Name: "hedged", Version: 1, Steps: []saga.Node[order]{saga.Step[order]{
		Name: "charge", Do: saga.Call(charge, func(o *order, payment string) { o.Payment = payment }, saga.Through(policy)),
		Compensate: saga.NotNeeded[order]("it is a test"),
	}}}
	i, err := saga.Execute(t.Context(), executing(t, d), d, "1", order{})
	require.NoError(t, err)
	<-policy.left
	require.Equal(t, saga.Completed, i.Status, i.Error)
	s, err := saga.StateOf(d, i)
	require.NoError(t, err)
	require.Equal(t, "the one that counts", s.Payment)
}

// What a function does to the state that it is given is no part of the instance:
// the function may come again, or be at work when its policy has given it up.
func TestCallsCannotChangeTheState(t *testing.T) {
	type basket struct{ Lines map[string]bool }
	step := func(name string) saga.Step[basket] {
		return saga.Step[basket]{
			Name: name, Timeout: saga.NoTimeout, Compensate: saga.NotNeeded[basket]("it is a test"),
			Do: saga.Call(func(_ context.Context, b basket) (string, error) {
				b.Lines["by the function of "+name] = true
				return name, nil
			}, func(b *basket, name string) { b.Lines[name] = true }),
		}
	}
	d := saga.Definition[basket]{Name: "baskets", Version: 1, Steps: []saga.Node[basket]{step("a"), step("b"), step("c")}}
	i, err := saga.Execute(t.Context(), executing(t, d), d, "1", basket{Lines: map[string]bool{}})
	require.NoError(t, err)
	s, err := saga.StateOf(d, i)
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"a": true, "b": true, "c": true}, s.Lines)
}

// executing is an orchestrator whose messages go nowhere.
func executing(t *testing.T, d saga.Untyped) *saga.Orchestrator {
	t.Helper()
	o, err := saga.NewOrchestrator(saga.NewMemoryStore(nowhere{}), saga.Config{Logger: discard}, d)
	require.NoError(t, err)
	return o
}
