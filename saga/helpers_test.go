package saga_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/saga"
)

var discard = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an orchestrator and its participants on the bus in memory.
type rig struct {
	t     *testing.T
	h     *eventbustest.Harness
	o     *saga.Orchestrator
	store *saga.MemoryStore
	parts *eventbus.Service
}

func newRig(t *testing.T, definitions ...saga.Untyped) *rig {
	h := eventbustest.New(t)
	r := &rig{t: t, h: h, store: saga.NewMemoryStore(h.Bus()), parts: eventbus.NewService("participants", h.Bus())}
	o, err := saga.NewOrchestrator(r.store, saga.Config{}, definitions...)
	require.NoError(t, err)
	r.o = o
	return r
}

// on has f called for the commands of a topic.
func on[C any](r *rig, topic eventbus.Topic[C], f func(ctx context.Context, id string, e eventbus.Event[C]) error) {
	eventbus.Subscribe(r.parts, topic, func(ctx context.Context, e eventbus.Event[C]) error {
		return f(ctx, e.Metadata[saga.MetadataInstance], e)
	})
}

func (r *rig) start() *rig {
	svc := eventbus.NewService("orders", r.h.Bus())
	r.o.Attach(svc)
	r.h.Start(svc)
	r.parts.Add(eventbus.RunnerFunc(func(ctx context.Context) error { <-ctx.Done(); return nil }))
	r.h.Start(r.parts)
	return r
}

// pass lets virtual time go on.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) instance(name, id string) saga.Instance {
	r.t.Helper()
	i, err := r.o.Get(r.t.Context(), name, id)
	require.NoError(r.t, err)
	return i
}

func (r *rig) requireStatus(want saga.Status, name, id string) saga.Instance {
	r.t.Helper()
	i := r.instance(name, id)
	if i.Status != want {
		entries, err := r.o.History(r.t.Context(), name, id)
		require.NoError(r.t, err)
		for _, e := range entries {
			r.t.Logf("%d %s: %s -> %s %v %s", e.Revision, e.Event, e.From, e.To, e.Emitted, e.Note)
		}
	}
	require.Equal(r.t, want, i.Status, i.Error)
	return i
}

func state[S any](r *rig, d saga.Definition[S], id string) S {
	r.t.Helper()
	s, err := saga.StateOf(d, r.instance(d.Name, id))
	require.NoError(r.t, err)
	return s
}
