package grpcidempotency_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/grpcidempotency"
)

var update = flag.Bool("update-stored", false, "write testdata/v1 anew, for a format that was never released")

// What was stored is read by every later version: a rolling deployment has both.
func TestStoredFormatOfVersion1(t *testing.T) {
	store := memory()
	q := idempotency.ClaimRequest{Key: idempotency.Key{Scope: "grpc:", ID: "k"}, Lease: time.Hour, Keep: time.Hour}
	conn := serve(t, newGuard(store, idempotency.Policy{}), grpcidempotency.Config{}, func(_ context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		if in.Value != "written" {
			return nil, errors.New("called again")
		}
		return wrapperspb.String("receipt-1"), nil
	})
	_, _, err := call(t.Context(), conn, "Charge", "written", "k")
	require.NoError(t, err)
	written, err := store.Claim(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, idempotency.StateDone, written.State, "the scope is part of the format")
	path := filepath.Join("testdata", "v1", "response")
	if *update {
		require.NoError(t, os.WriteFile(path, written.Result, 0o600))
	}
	golden, err := os.ReadFile(path)
	require.NoError(t, err)

	q.Key.ID = "old"
	r, err := store.Claim(t.Context(), q)
	require.NoError(t, err)
	require.NoError(t, store.Complete(t.Context(), r.Claim, golden, time.Hour))
	out, replayed, err := call(t.Context(), conn, "Charge", "read", "old")
	require.NoError(t, err)
	require.True(t, replayed)
	require.Equal(t, "receipt-1", out)
}
