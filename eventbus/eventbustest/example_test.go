package eventbustest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
)

type TrialStarted struct{ User string }
type TrialEnded struct{ User string }

var (
	TrialsStarted = eventbus.NewTopic[TrialStarted]("trials.started")
	TrialsEnded   = eventbus.NewTopic[TrialEnded]("trials.ended")
)

// NewTrials is the service under test: a trial ends thirty days after it began.
func NewTrials(bus *eventbus.Bus) *eventbus.Service {
	svc := eventbus.NewService("trials", bus)
	eventbus.Subscribe(svc, TrialsStarted, func(ctx context.Context, e eventbus.Event[TrialStarted]) error {
		return TrialsEnded.Publish(ctx, bus, TrialEnded(e.Data), eventbus.WithDelay(30*24*time.Hour))
	})
	eventbus.Subscribe(svc, TrialsEnded, func(context.Context, eventbus.Event[TrialEnded]) error { return nil })
	return svc
}

// A delay of thirty days is tested in milliseconds: inside a synctest bubble the
// clock jumps as soon as nothing else can happen.
func ExampleHarness() {
	var t *testing.T // from go test: TestTrialEndsAfterThirtyDays calls this
	testTrial(t)
}

func testTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		h.Start(NewTrials(h.Bus()))
		if err := TrialsStarted.Publish(t.Context(), h.Bus(), TrialStarted{User: "ada"}); err != nil {
			t.Fatal(err)
		}
		ended := eventbustest.AwaitPublished(h, TrialsEnded, nil)

		time.Sleep(30*24*time.Hour - time.Second) // virtual
		synctest.Wait()
		if h.Consumed("trials.ended", "trials", ended.ID) != 0 {
			t.Error("the trial ended early")
		}
		time.Sleep(time.Second)
		h.AwaitConsumed("trials.ended", "trials", ended.ID)
	})
}
