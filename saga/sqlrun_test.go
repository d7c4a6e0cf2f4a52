package saga_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/saga"
)

// asking sends a command and waits for an answer for so long.
func asking(name string, timeout time.Duration) (d saga.Definition[string], ask, answer eventbus.Topic[string]) {
	ask, answer = eventbus.NewTopic[string](name+".ask"), eventbus.NewTopic[string](name+".answer")
	d = saga.Definition[string]{
		Name: name, Version: 1,
		Steps: []saga.Node[string]{saga.Step[string]{
			Name:       "ask",
			Do:         saga.Send(ask, func(string) string { return "please" }),
			Success:    saga.On(answer, func(id string) string { return id }, func(s *string, id string) { *s = "got " + id }),
			Timeout:    timeout,
			Compensate: saga.NotNeeded[string]("a question binds nobody"),
		}},
	}
	return d, ask, answer
}

// Commands, answers and timeouts go by the outbox and the inbox of each database.
func TestOrchestratorOnSQLStores(t *testing.T) {
	eachStored(t, func(t *testing.T, s stored) {
		patient, ask, answer := asking("patient", time.Hour)
		hasty, _, _ := asking("hasty", 20*time.Millisecond)
		o, err := saga.NewOrchestrator(s, saga.Config{Logger: discard}, patient, hasty)
		require.NoError(t, err)
		bus, err := eventbus.Open(t.Context(), "memory:")
		require.NoError(t, err)
		defer bus.Close()
		svc := eventbus.NewService("shop", bus)
		o.Attach(svc)
		eventbus.Subscribe(svc, ask, func(ctx context.Context, e eventbus.Event[string]) error {
			return answer.Publish(ctx, bus, e.Metadata[saga.MetadataInstance])
		})
		svc.Add(s.box.Relay(bus, outbox.Poll(10*time.Millisecond)), s.inbox, s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- svc.Run(ctx) }()
		defer func() { cancel(); require.NoError(t, <-done) }()

		for definition, want := range map[*saga.Definition[string]]saga.Status{&patient: saga.Completed, &hasty: saga.Compensated} {
			const instances = 10
			for n := range instances {
				_, err := saga.Execute(ctx, o, *definition, fmt.Sprint(definition.Name, n), "")
				require.NoError(t, err)
			}
			require.Eventually(t, func() bool {
				n, err := o.Count(ctx, definition.Name)
				return err == nil && n[want] == instances
			}, 20*time.Second, 5*time.Millisecond, definition.Name)
		}
	})
}
