package saga_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
)

// The trace of what began an instance goes on through its commands, its timers
// and what follows them.
func TestTracesLinkEveryHop(t *testing.T) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fulfilment(func(context.Context, order) (string, error) { return "p", nil }))
		traces := map[string]string{}
		on(r, reserve, func(_ context.Context, _ string, e eventbus.Event[reserveStock]) error {
			traces["command"] = e.Metadata[eventbus.MetadataTraceParent]
			require.Equal(t, "request 7", e.CorrelationID)
			return nil // no answer: a timer will expire
		})
		on(r, release, func(_ context.Context, _ string, e eventbus.Event[releaseStock]) error {
			traces["compensation"] = e.Metadata[eventbus.MetadataTraceParent]
			require.Equal(t, "request 7", e.CorrelationID)
			return nil
		})
		r.start()
		ctx := eventbus.WithCorrelationID(t.Context(), "request 7")
		require.NoError(t, placed.Publish(ctx, r.h.Bus(), orderPlaced{"1", 7}, eventbus.WithMetadata(eventbus.MetadataTraceParent, trace)))
		r.pass(time.Hour)
		require.Equal(t, map[string]string{"command": trace, "compensation": trace}, traces)
	})
}
