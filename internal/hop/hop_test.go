package hop_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/hop"
)

func TestPrevious(t *testing.T) {
	ctx := context.Background()
	require.Zero(t, hop.Previous(ctx))
	retried := hop.With(ctx, 2)
	require.Equal(t, 2, hop.Previous(retried))
	require.Equal(t, 3, hop.Previous(hop.With(retried, 3)), "the innermost counts")
	require.Zero(t, hop.Previous(context.WithValue(ctx, hop.Key{}, "2")), "what is no number says nothing")
}
