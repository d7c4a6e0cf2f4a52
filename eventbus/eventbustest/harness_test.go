package eventbustest_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

func TestTrialEndsAfterThirtyDays(t *testing.T) {
	start := time.Now()
	testTrial(t)
	require.Less(t, time.Since(start), 5*time.Second, "thirty virtual days took real time")
}

type step struct {
	Account string
	N       int
}

var steps = eventbus.NewTopic[step]("steps", eventbus.KeyBy(func(s step) string { return s.Account }))

// counter is a handler that notes what it was called with.
type counter struct {
	mu    sync.Mutex
	calls map[string][]int
	times map[string]int
}

func newCounter(h *eventbustest.Harness, t *testing.T) *counter {
	c := &counter{calls: map[string][]int{}, times: map[string]int{}}
	svc := eventbus.NewService("count", h.Bus())
	eventbus.Subscribe(svc, steps, func(_ context.Context, e eventbus.Event[step]) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.calls[e.Data.Account] = append(c.calls[e.Data.Account], e.Data.N)
		c.times[e.ID]++
		return nil
	})
	h.Start(svc)
	return c
}

// publishSteps sends n events for one account and returns when all are consumed.
func publishSteps(t *testing.T, h *eventbustest.Harness, n int) {
	t.Helper()
	for i := range n {
		require.NoError(t, steps.Publish(t.Context(), h.Bus(), step{"a", i}))
	}
	h.AwaitIdle()
}

func (c *counter) repeats() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, times := range c.times {
		n += times - 1
	}
	return n
}

func (c *counter) inOrder() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	highest := -1
	for _, n := range c.calls["a"] {
		if n > highest+1 {
			return false
		}
		highest = max(highest, n)
	}
	return true
}

func TestFaultsDoWhatTheySay(t *testing.T) {
	for name, test := range map[string]struct {
		faults  eventbustest.Faults
		repeats bool
		inOrder bool
	}{
		"none":             {eventbustest.Faults{}, false, true},
		"all twice":        {eventbustest.Faults{Duplicate: 1}, true, true},
		"duplicate":        {eventbustest.Faults{Duplicate: 0.3}, true, true},
		"delay":            {eventbustest.Faults{Delay: 0.3}, false, true},
		"reorder":          {eventbustest.Faults{Reorder: 0.3}, false, false},
		"crash before ack": {eventbustest.Faults{CrashBeforeAck: 0.3}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test.faults.Seed = 42
				h := eventbustest.New(t, test.faults)
				c := newCounter(h, t)
				publishSteps(t, h, 100)
				require.Len(t, c.times, 100, "no fault loses an event")
				require.Equal(t, test.repeats, c.repeats() > 0, "%d repeats", c.repeats())
				require.Equal(t, test.inOrder, c.inOrder(), "%v", c.calls["a"])
			})
		})
	}
}

func TestCrashAfterAckLosesTheAcksOfTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t, eventbustest.Faults{Seed: 7, CrashAfterAck: 0.2})
		var calls atomic.Int32
		svc := eventbus.NewService("count", h.Bus())
		eventbus.Subscribe(svc, steps, func(context.Context, eventbus.Event[step]) error {
			calls.Add(1)
			time.Sleep(time.Millisecond) // virtual: others run meanwhile
			return nil
		})
		h.Start(svc)
		for i := range 200 {
			require.NoError(t, steps.Publish(t.Context(), h.Bus(), step{fmt.Sprint(i), 0}))
		}
		h.AwaitIdle()
		require.Greater(t, calls.Load(), int32(200))
	})
}

func TestSameSeedSameFaults(t *testing.T) {
	play := func() (calls []int) {
		synctest.Test(t, func(t *testing.T) {
			h := eventbustest.New(t, eventbustest.Faults{Seed: 99, Duplicate: 0.2, CrashBeforeAck: 0.2, Reorder: 0.2})
			c := newCounter(h, t)
			publishSteps(t, h, 60)
			calls = c.calls["a"]
		})
		return calls
	}
	require.Equal(t, play(), play())
}

func TestAwaitIdleWaitsForWhatIsDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		require.NoError(t, steps.Publish(t.Context(), h.Bus(), step{"a", 1}))
		var calls atomic.Int32
		late := eventbus.NewService("late", h.Bus())
		eventbus.Subscribe(late, steps, func(context.Context, eventbus.Event[step]) error { return nil }, eventbus.StartNewest())
		h.Start(late)
		h.AwaitIdle()
		svc := eventbus.NewService("count", h.Bus())
		eventbus.Subscribe(svc, steps, func(_ context.Context, e eventbus.Event[step]) error {
			if calls.Add(1); e.Attempt == 1 {
				return fmt.Errorf("fails at first")
			}
			return nil
		}, eventbus.Retry(eventbus.RetryPolicy{Tries: 1, Delays: []time.Duration{time.Hour}, KeepOrder: true}))
		h.Start(svc)
		require.NoError(t, steps.Publish(t.Context(), h.Bus(), step{"b", 1}, eventbus.WithDelay(30*24*time.Hour)))
		h.AwaitIdle()
		require.EqualValues(t, 4, calls.Load())
	})
}

func TestHarnessCollectsDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		svc := eventbus.NewService("count", h.Bus())
		eventbus.Subscribe(svc, steps, func(context.Context, eventbus.Event[step]) error {
			return eventbus.Permanent(fmt.Errorf("account is closed"))
		})
		h.Start(svc)
		publishSteps(t, h, 1)
		dead := h.DeadLetters()
		require.Len(t, dead, 1)
		require.Equal(t, "account is closed", dead[0].Cause)
		require.Len(t, eventbustest.Published(h, steps), 1)
	})
}

// failing collects what a harness would fail a test with.
type failing struct {
	testing.TB
	message string
}

func (f *failing) Helper()                        {}
func (f *failing) Fatalf(format string, a ...any) { f.message = fmt.Sprintf(format, a...); panic(f) }

func TestAwaitGivesUpWhenTheBusIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{TB: t}
		h := eventbustest.New(f)
		defer func() {
			require.Equal(t, f, recover())
			require.Contains(t, f.message, `waited for group "count" to consume event e-1 of "steps", but the bus was silent for 5s`)
		}()
		h.AwaitConsumed("steps", "count", "e-1")
	})
}
