package saga_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

type booking struct {
	Paid, Packed bool
	Amount       int
	Receipt      string
	Log          []string
}

type (
	paidEvent    struct{ ID string }
	packedEvent  struct{ ID string }
	shipCommand  struct{ ID string }
	approval     struct{ By string }
	remindAction struct{ N int }
)

var (
	paidTopic   = eventbus.NewTopic[paidEvent]("payments.paid")
	packedTopic = eventbus.NewTopic[packedEvent]("warehouse.packed")
	shipTopic   = eventbus.NewTopic[shipCommand]("shipping.ship")
	remindTopic = eventbus.NewTopic[remindAction]("customers.remind")
)

func shipping(bill func(context.Context, booking) (string, error)) saga.Definition[booking] {
	type T = saga.Transition[booking]
	type E = []saga.Effect[booking]
	paid := saga.On(paidTopic, func(e paidEvent) string { return e.ID }, func(b *booking, _ paidEvent) { b.Paid = true })
	packed := saga.On(packedTopic, func(e packedEvent) string { return e.ID }, func(b *booking, _ packedEvent) { b.Packed = true })
	approved := saga.Signal("approved", func(b *booking, a approval) { b.Log = append(b.Log, "approved by "+a.By) })
	ship := saga.Do("ship", saga.Send(shipTopic, func(booking) shipCommand { return shipCommand{} }))
	remind := saga.Do("remind", saga.Send(remindTopic, func(b booking) remindAction { return remindAction{len(b.Log)} }))
	billing := saga.Do("bill", saga.Call(bill, func(b *booking, receipt string) { b.Receipt = receipt }))
	deadline := saga.Schedule[booking]("deadline", 7*24*time.Hour)
	return saga.Definition[booking]{
		Name: "shipping", Version: 1, StartedBy: saga.AnyOf(paid, packed),
		States: []saga.State[booking]{
			{Name: "collecting", On: []T{
				{Event: paid, Do: E{deadline}},
				{Event: packed, Do: E{deadline}},
				{Event: saga.AllOf("ready", paid, packed), Do: E{remind, saga.Unschedule[booking]("deadline"), deadline}, GoTo: "approving"},
				{Event: saga.Timeout[booking]("deadline"), GoTo: "given up"},
			}},
			{Name: "approving", On: []T{
				{Event: approved, If: func(b booking) bool { return b.Log[len(b.Log)-1] == "approved by boss" }, Do: E{billing}, GoTo: "billing"},
				{Event: approved},
				{Event: saga.Timeout[booking]("deadline"), GoTo: "given up"},
			}, Ignores: saga.AnyOf(paid, packed)},
			{Name: "billing", On: []T{
				{Event: saga.Returned[booking]("bill"), Do: E{ship}, GoTo: "shipped"},
				{Event: saga.Failed[booking]("bill"), GoTo: "given up"},
			}, Ignores: approved},
			{Name: "shipped", Final: saga.Completed},
			{Name: "given up", Final: saga.Compensated},
		},
	}
}

func billed(context.Context, booking) (string, error) { return "r1", nil }

func TestStates(t *testing.T) {
	boss, clerk := approval{"boss"}, approval{"clerk"}
	for name, tt := range map[string]struct {
		bill  func(context.Context, booking) (string, error)
		do    func(r *rig)
		want  saga.Status
		state booking
		ships int
	}{
		"either event may come first": {billed, func(r *rig) { r.packed(); r.paid(); r.approve(boss) }, saga.Completed,
			booking{Paid: true, Packed: true, Receipt: "r1", Log: []string{"approved by boss"}}, 1},
		"the other order": {billed, func(r *rig) { r.paid(); r.packed(); r.approve(boss) }, saga.Completed,
			booking{Paid: true, Packed: true, Receipt: "r1", Log: []string{"approved by boss"}}, 1},
		"a signal that comes early is kept": {billed, func(r *rig) { r.paid(); r.approve(boss); r.packed() }, saga.Completed,
			booking{Paid: true, Packed: true, Receipt: "r1", Log: []string{"approved by boss"}}, 1},
		"a guard": {billed, func(r *rig) { r.paid(); r.packed(); r.approve(clerk); r.approve(boss) }, saga.Completed,
			booking{Paid: true, Packed: true, Receipt: "r1", Log: []string{"approved by clerk", "approved by boss"}}, 1},
		"nobody approves": {billed, func(r *rig) { r.paid(); r.packed(); r.pass(8 * 24 * time.Hour) }, saga.Compensated,
			booking{Paid: true, Packed: true}, 0},
		"half of it": {billed, func(r *rig) { r.paid(); r.pass(8 * 24 * time.Hour) }, saga.Compensated, booking{Paid: true}, 0},
		"a call fails": {func(context.Context, booking) (string, error) { return "", errors.New("no") }, func(r *rig) { r.paid(); r.packed(); r.approve(boss) }, saga.Compensated,
			booking{Paid: true, Packed: true, Log: []string{"approved by boss"}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := shipping(tt.bill)
				r := newRig(t, d)
				ships := 0
				on(r, shipTopic, func(_ context.Context, id string, _ eventbus.Event[shipCommand]) error { ships++; return nil })
				r.start()
				tt.do(r)
				r.pass(time.Hour)
				r.requireStatus(tt.want, "shipping", "1")
				require.Equal(t, tt.state, state(r, d, "1"))
				require.Equal(t, tt.ships, ships)
			})
		})
	}
}

func (r *rig) paid() {
	require.NoError(r.t, paidTopic.Publish(r.t.Context(), r.h.Bus(), paidEvent{"1"}))
	synctest.Wait()
}

func (r *rig) packed() {
	require.NoError(r.t, packedTopic.Publish(r.t.Context(), r.h.Bus(), packedEvent{"1"}))
	synctest.Wait()
}

func (r *rig) approve(a approval) {
	require.NoError(r.t, r.o.Signal(r.t.Context(), "shipping", "1", "approved", a))
	synctest.Wait()
}

func TestSignalThatNobodyKnowsIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, shipping(billed)).start()
		r.paid()
		require.ErrorContains(t, r.o.Signal(t.Context(), "shipping", "1", "aproved", nil), `"aproved"`)
		require.ErrorIs(t, r.o.Signal(t.Context(), "shipping", "2", "approved", nil), saga.ErrNoInstance)
		require.NoError(t, saga.SendSignal(t.Context(), r.h.Bus(), "shipping", "1", "approved", approval{"x"}))
		synctest.Wait()
	})
}

func TestStuckMachineIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		d := shipping(func(context.Context, booking) (string, error) {
			if broken {
				panic("not ready")
			}
			return "r2", nil
		})
		d.States[2].On = d.States[2].On[:1]
		d.States[2].On = append(d.States[2].On, saga.Transition[booking]{Event: saga.Failed[booking]("bill"), If: func(booking) bool { return false }, GoTo: "given up"})
		r := newRig(t, d)
		on(r, shipTopic, func(context.Context, string, eventbus.Event[shipCommand]) error { return nil })
		r.start()
		r.paid()
		r.packed()
		r.approve(approval{"boss"})
		i := r.requireStatus(saga.Stuck, "shipping", "1")
		require.Contains(t, i.Error, "not ready")
		broken = false
		require.NoError(t, r.o.Retry(t.Context(), "shipping", "1"))
		r.pass(time.Second)
		r.requireStatus(saga.Completed, "shipping", "1")
	})
}

func TestEventsThatNothingWaitsForAreKeptUpToALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, shipping(billed)).start()
		r.paid()
		for range 100 {
			require.NoError(t, r.o.Signal(t.Context(), "shipping", "1", "approved", approval{"clerk"}))
		}
		err := r.o.Signal(t.Context(), "shipping", "1", "approved", approval{"clerk"})
		require.ErrorContains(t, err, "the limit")
		require.True(t, eventbus.IsPermanent(err), "it would be no better later")
		r.packed()
		r.approve(approval{"boss"})
		r.requireStatus(saga.Completed, "shipping", "1")
		require.Len(t, state(r, shipping(billed), "1").Log, 101)
	})
}

// loopOfStates does something at the signals "again" and "anew".
func loopOfStates(do saga.Effect[order], more ...saga.Transition[order]) saga.Definition[order] {
	signal := func(name string) saga.Event[order] { return saga.Signal[order, any](name, nil) }
	type E = []saga.Effect[order]
	return saga.Definition[order]{Name: "loop", Version: 1, States: []saga.State[order]{
		{Name: "looping", NoTimeout: true, On: append(more, []saga.Transition[order]{
			{Event: signal("again"), Do: E{do}},
			{Event: signal("anew"), Do: E{saga.Anew[order]("ask"), do}},
			{Event: saga.On(reserved, func(e stockReserved) string { return e.OrderID }, func(o *order, _ stockReserved) { o.Total++ })},
			{Event: signal("end"), GoTo: "ended"},
		}...)},
		{Name: "ended", Final: saga.Completed},
	}}
}

func TestAnewIgnoresAnswersToWhatCameBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := loopOfStates(saga.Do("ask", saga.Send(reserve, func(order) reserveStock { return reserveStock{} })))
		var commands []map[string]string
		r := newRig(t, d)
		on(r, reserve, func(_ context.Context, _ string, e eventbus.Event[reserveStock]) error {
			commands = append(commands, e.Metadata)
			return nil
		})
		r.start()
		_, err := saga.Execute(t.Context(), r.o, d, "1", order{})
		require.NoError(t, err)
		for range 2 {
			require.NoError(t, r.o.Signal(t.Context(), "loop", "1", "anew", nil))
			synctest.Wait()
		}
		require.Len(t, commands, 2)
		for _, c := range commands {
			require.NoError(t, reserved.Publish(t.Context(), r.h.Bus(), stockReserved{"1"}, saga.Answering(c)))
		}
		require.NoError(t, reserved.Publish(t.Context(), r.h.Bus(), stockReserved{"1"})) // says nothing of what it answers
		synctest.Wait()
		require.Equal(t, 2, state(r, d, "1").Total)
	})
}

func TestAnewGivesACallAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		d := loopOfStates(saga.Do("ask", saga.Call(func(ctx context.Context, _ order) (int, error) {
			keys = append(keys, saga.KeyOf(ctx))
			return 0, nil
		}, nil)), saga.Transition[order]{Event: saga.Failed[order]("ask")})
		r := newRig(t, d).start()
		_, err := saga.Execute(t.Context(), r.o, d, "1", order{})
		require.NoError(t, err)
		for _, signal := range []string{"again", "again", "anew", "again"} {
			require.NoError(t, r.o.Signal(t.Context(), "loop", "1", signal, nil))
		}
		require.Equal(t, []string{"loop/1/ask", "loop/1/ask", "loop/1/ask#2", "loop/1/ask#2"}, keys)
	})
}
