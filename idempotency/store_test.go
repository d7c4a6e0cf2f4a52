package idempotency_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/storetest"
	"github.com/millrace-go/millrace/internal/testdb"
)

func TestMemoryStoreConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) func() idempotency.Store {
		s := idempotency.NewMemoryStore(idempotency.MemoryConfig{})
		return func() idempotency.Store { return s }
	})
}

func TestSQLStoreConformance(t *testing.T) {
	for _, d := range testdb.Dialects {
		t.Run(d.String(), func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) func() idempotency.Store {
				db := testdb.New(t, d)
				newSQLStore(t, db)
				return func() idempotency.Store {
					return idempotency.NewSQLStore(db.Open(t), d, idempotency.SQLConfig{})
				}
			})
		})
	}
}

func newSQLStore(t testing.TB, db testdb.DB) *idempotency.SQLStore {
	t.Helper()
	s := idempotency.NewSQLStore(db.DB, db.Dialect, idempotency.SQLConfig{})
	require.NoError(t, s.Migrate(t.Context()))
	return s
}
