package idempotency_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/testdb"
)

// The cost of a guarded call above its function, for new keys and for replays.
func BenchmarkDo(b *testing.B) {
	stores := map[string]func(b *testing.B) idempotency.Store{
		"memory": func(*testing.B) idempotency.Store {
			return idempotency.NewMemoryStore(idempotency.MemoryConfig{MaxEntries: 10_000_000})
		},
	}
	for _, d := range testdb.Dialects {
		stores[d.String()] = func(b *testing.B) idempotency.Store { return newSQLStore(b, testdb.New(b, d)) }
	}
	for _, name := range []string{"memory", "sqlite", "postgres", "mysql"} {
		b.Run(name+"/new", func(b *testing.B) {
			g := newGuard(stores[name](b), idempotency.Policy{})
			i := 0
			for b.Loop() {
				i++
				_, replayed, err := idempotency.Do(b.Context(), g, idempotency.Key{Scope: "bench", ID: strconv.Itoa(i)}, answer(i))
				if replayed || err != nil {
					b.Fatal(replayed, err)
				}
			}
		})
		b.Run(name+"/replay", func(b *testing.B) {
			g := newGuard(stores[name](b), idempotency.Policy{})
			_, _, err := idempotency.Do(context.Background(), g, orderKey, answer(1))
			require.NoError(b, err)
			for b.Loop() {
				_, replayed, err := idempotency.Do(b.Context(), g, orderKey, answer(1))
				if !replayed || err != nil {
					b.Fatal(replayed, err)
				}
			}
		})
	}
}
