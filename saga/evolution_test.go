package saga_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/saga"
)

// No way to change a definition while instances run (NServiceBus#6494).
func TestVersionsRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		charged := 0
		v1 := fulfilment(func(context.Context, order) (string, error) { charged++; return "p", nil })
		v2 := v1
		v2.Version, v2.Steps = 2, v1.Steps[:1] // payment has moved elsewhere
		h := eventbustest.New(t)
		store := saga.NewMemoryStore(h.Bus())
		start := func(definitions ...saga.Untyped) (*saga.Orchestrator, func()) {
			o, err := saga.NewOrchestrator(store, saga.Config{}, definitions...)
			require.NoError(t, err)
			svc := eventbus.NewService("orders", h.Bus())
			o.Attach(svc)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- svc.Run(ctx) }()
			<-svc.Ready()
			return o, func() { stop(); require.NoError(t, <-ended) }
		}
		_, stop := start(v1)
		require.NoError(t, placed.Publish(t.Context(), h.Bus(), orderPlaced{"old", 7}))
		synctest.Wait()
		stop()
		o, stop := start(v1, v2)
		require.NoError(t, placed.Publish(t.Context(), h.Bus(), orderPlaced{"new", 7}))
		synctest.Wait()
		for _, id := range []string{"old", "new"} {
			require.NoError(t, reserved.Publish(t.Context(), h.Bus(), stockReserved{id}))
		}
		synctest.Wait()
		for id, version := range map[string]int{"old": 1, "new": 2} {
			i, err := o.Get(t.Context(), "fulfilment", id)
			require.NoError(t, err)
			require.Equal(t, saga.Completed, i.Status)
			require.Equal(t, version, i.Version)
		}
		require.Equal(t, 1, charged)
		stop()
	})
}

func TestDefinitionThatChangedUnderItsVersionIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fulfilment(nil)
		store := saga.NewMemoryStore(eventbustest.New(t).Bus())
		check := func(d saga.Untyped) error {
			o, err := saga.NewOrchestrator(store, saga.Config{}, d)
			require.NoError(t, err)
			return o.Check(t.Context())
		}
		require.NoError(t, check(d))
		require.NoError(t, check(d))
		patient := d
		step := d.Steps[0].(saga.Step[order])
		step.Timeout = time.Hour
		patient.Steps = []saga.Node[order]{step, d.Steps[1]}
		require.NoError(t, check(patient), "timeouts may change")
		changed := d
		changed.Steps = d.Steps[:1]
		require.ErrorIs(t, check(changed), saga.ErrChanged)
		changed.Version = 2
		require.NoError(t, check(changed))
	})
}

func TestInstanceOfAnUnknownVersionWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fulfilment(nil)).start()
		require.NoError(t, placed.Publish(t.Context(), r.h.Bus(), orderPlaced{"1", 7}))
		r.pass(time.Second)
		v2 := fulfilment(nil)
		v2.Version = 2
		o, err := saga.NewOrchestrator(r.store, saga.Config{}, v2)
		require.NoError(t, err)
		require.ErrorContains(t, o.Cancel(t.Context(), "fulfilment", "1", "x"), "version 1, which this orchestrator has no definition of")
		require.NoError(t, r.o.Cancel(t.Context(), "fulfilment", "1", "x"))
		r.pass(time.Hour)
	})
}

func TestStateIsMigratedWhenItIsLoaded(t *testing.T) {
	type orderV2 struct {
		Cents int
		Notes []string
	}
	type orderV3 struct {
		Cents int
		Note  string
	}
	i := saga.Instance{Saga: "s", ID: "1", State: []byte(`{"Total":7}`), StateVersion: 1}
	d := saga.Definition[orderV3]{Name: "s", Version: 3, StateVersion: 3, Migrations: []saga.Migration{
		saga.Migrate(1, func(o order) (orderV2, error) { return orderV2{Cents: 100 * o.Total, Notes: []string{"a", "b"}}, nil }),
		saga.Migrate(2, func(o orderV2) (orderV3, error) { return orderV3{o.Cents, strings.Join(o.Notes, " ")}, nil }),
	}}
	s, err := saga.StateOf(d, i)
	require.NoError(t, err)
	require.Equal(t, orderV3{700, "a b"}, s)
	i.StateVersion = 4
	_, err = saga.StateOf(d, i)
	require.ErrorContains(t, err, "newer")
}
