package saga_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// schedule decides, at each access to the store, which delivery goes on and
// whether its access fails. It is run again and again until all choices are
// exhausted, depth first.
type schedule struct {
	choices []choice
	depth   int
}

type choice struct{ taken, of int }

func (s *schedule) choose(of int) int {
	if s.depth == len(s.choices) {
		s.choices = append(s.choices, choice{0, of})
	}
	c := s.choices[s.depth]
	s.depth++
	return c.taken
}

// next moves to the next schedule; it reports false after the last.
func (s *schedule) next() bool {
	s.depth = 0
	for n := len(s.choices) - 1; n >= 0; n-- {
		if s.choices[n].taken++; s.choices[n].taken < s.choices[n].of {
			s.choices = s.choices[:n+1]
			return true
		}
	}
	return false
}

// gate is a store whose accesses wait for the schedule.
type gate struct {
	saga.Store
	at chan access
}

// access is a delivery that waits to be let through.
type access struct {
	delivery int
	commit   bool
	pass     chan verdict
}

type deliveryKey struct{}

type verdict int

const (
	passes verdict = iota
	failsBefore
	answerIsLost
)

var errConnection = errors.New("connection lost")

func (g *gate) wait(ctx context.Context, commit bool) verdict {
	p := make(chan verdict)
	g.at <- access{ctx.Value(deliveryKey{}).(int), commit, p}
	return <-p
}

func (g *gate) Load(ctx context.Context, name, id string) (saga.Instance, error) {
	g.wait(ctx, false)
	return g.Store.Load(ctx, name, id)
}

func (g *gate) Commit(ctx context.Context, c saga.Commit) error {
	v := g.wait(ctx, true)
	if v == failsBefore {
		return errConnection
	}
	err := g.Store.Commit(ctx, c)
	if v == answerIsLost && err == nil {
		return errConnection
	}
	return err
}

type ignore struct{}

func (ignore) Publish(string, ...*message.Message) error { return nil }
func (ignore) Close() error                              { return nil }

// Two orchestrators with caches of their own get three answers to one instance
// at the same time; each access to the store is a point where the others may go
// first, and one Commit may fail or lose its answer. Deliveries that fail come
// again. No answer is lost, none counts twice.
func TestEveryInterleavingOfThreeDeliveries(t *testing.T) {
	topics := []eventbus.Topic[stockReserved]{
		eventbus.NewTopic[stockReserved]("quotes.a"), eventbus.NewTopic[stockReserved]("quotes.b"), eventbus.NewTopic[stockReserved]("quotes.c"),
	}
	var branches []saga.Node[trace]
	for n, topic := range topics {
		branches = append(branches, saga.Step[trace]{
			Name: fmt.Sprint("quote ", n), Timeout: saga.NoTimeout,
			Success: saga.On(topic, func(e stockReserved) string { return e.OrderID }, func(s *trace, _ stockReserved) { s.Count += []int{1, 10, 100}[n] }),
		})
	}
	d := sagaOf(saga.Parallel[trace]{Name: "quotes", Branches: branches})

	plan := &schedule{}
	runs := 0
	for more := true; more; more = plan.next() {
		runs++
		store := saga.NewMemoryStore(ignore{})
		o, err := saga.NewOrchestrator(store, saga.Config{Logger: discard}, d)
		require.NoError(t, err)
		_, err = saga.Execute(t.Context(), o, d, "1", trace{})
		require.NoError(t, err)
		deliverAll(t, plan, store, d, topics)
		i, err := store.Load(t.Context(), "s", "1")
		require.NoError(t, err)
		s, err := saga.StateOf(d, i)
		require.NoError(t, err)
		require.Equal(t, saga.Completed, i.Status, "schedule %v", plan.choices)
		require.Equal(t, 111, s.Count, "schedule %v", plan.choices)
		require.EqualValues(t, 4, i.Revision, "schedule %v", plan.choices)
	}
	t.Logf("%d interleavings", runs)
	require.Greater(t, runs, 1000)
}

// deliverAll delivers an event of each topic, the first two to one orchestrator,
// under the schedule.
func deliverAll(t *testing.T, plan *schedule, store saga.Store, d saga.Definition[trace], topics []eventbus.Topic[stockReserved]) {
	at, ended := make(chan access), make(chan error)
	var subscriptions [2][]saga.Subscription
	for n := range subscriptions {
		o, err := saga.NewOrchestrator(&gate{store, at}, saga.Config{Logger: discard}, d)
		require.NoError(t, err)
		subscriptions[n] = o.Subscriptions("orders")
	}
	handle := func(n int) {
		ctx := context.WithValue(t.Context(), deliveryKey{}, n)
		m, err := topics[n].Message(ctx, ignore{}, stockReserved{"1"}, eventbus.WithID(fmt.Sprint("event", n)))
		if err != nil {
			ended <- err
			return
		}
		for _, s := range subscriptions[n/2] {
			if s.Topic != topics[n].Name() {
				continue
			}
			for { // what fails is delivered again
				again := m.Copy()
				again.SetContext(ctx)
				if err = s.Handle(again); !errors.Is(err, errConnection) {
					ended <- err
					return
				}
			}
		}
	}
	for n := range topics {
		go handle(n)
	}
	faults := 1
	var waiting []access
	for running := len(topics); running > 0 || len(waiting) > 0; {
		for len(waiting) < running {
			select {
			case g := <-at:
				waiting = append(waiting, g)
			case err := <-ended:
				require.NoError(t, err)
				running--
			case <-time.After(30 * time.Second):
				require.FailNow(t, "a delivery hangs")
			}
		}
		if running == 0 {
			return
		}
		slices.SortFunc(waiting, func(a, b access) int { return a.delivery - b.delivery })
		n := plan.choose(len(waiting))
		g := waiting[n]
		waiting = append(waiting[:n], waiting[n+1:]...)
		v := passes
		if g.commit && faults > 0 {
			if v = verdict(plan.choose(3)); v != passes {
				faults--
			}
		}
		g.pass <- v
	}
}
