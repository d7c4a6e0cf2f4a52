package aftercommit

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHooksRunOncePerIDAfterCommit(t *testing.T) {
	calls := 0
	require.False(t, Do(context.Background(), "relay", func() { calls++ }))
	ctx, hooks := With(context.Background())
	require.True(t, Do(ctx, "relay", func() { calls++ }))
	require.True(t, Do(ctx, "relay", func() { calls += 10 }))
	require.Zero(t, calls)
	hooks.Run()
	hooks.Run()
	require.Equal(t, 1, calls)
}
