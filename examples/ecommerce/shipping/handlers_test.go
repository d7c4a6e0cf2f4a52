package shipping

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/platform"
)

func TestParcelIsShippedNowAndDueLater(t *testing.T) {
	bus, err := eventbus.Open(t.Context(), "memory:")
	require.NoError(t, err)
	defer bus.Close()
	s, err := New(t.Context(), platform.Env{Bus: bus, Dir: t.TempDir()})
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		return s.ship(ctx, tx, eventbus.Event[events.OrderDispatched]{Data: events.OrderDispatched{Order: events.Order{ID: "o-1"}}})
	}))
	stats, err := s.box.Stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, stats.Pending)
	require.EqualValues(t, 1, stats.Scheduled)
}

func TestWayIsWithinItsBounds(t *testing.T) {
	s := &Service{seed: 1}
	for i := range 1000 {
		way := s.way(events.Parcel{ParcelID: fmt.Sprint(i)})
		require.GreaterOrEqual(t, way, shortestWay)
		require.Less(t, way, longestWay)
	}
}
