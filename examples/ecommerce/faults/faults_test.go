package faults

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
)

func TestFaultsStrikeBeforeAndAfterTheWritesEquallyOften(t *testing.T) {
	called, failed := 0, 0
	h := Around(New("order", 1, 0.2, 0), func(context.Context, *sql.Tx, eventbus.Event[int]) error {
		called++
		return nil
	})
	for range 10_000 {
		if h(t.Context(), nil, eventbus.Event[int]{}) != nil {
			failed++
		}
	}
	require.InDelta(t, 2000, failed, 200)
	require.InDelta(t, 9000, called, 150)
}

func TestNoFaults(t *testing.T) {
	var none *Faults
	h := Around(none, func(context.Context, *sql.Tx, eventbus.Event[int]) error { return nil })
	require.NoError(t, h(t.Context(), nil, eventbus.Event[int]{}))
}
