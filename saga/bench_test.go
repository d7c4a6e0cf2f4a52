package saga_test

import (
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/pgxsaga"
)

// BenchmarkCommit is a transition by an event with one message.
func BenchmarkCommit(b *testing.B) {
	b.Run("memory", func(b *testing.B) { commitMany(b, saga.NewMemoryStore(nowhere{})) })
	for _, d := range testdb.Dialects {
		b.Run(d.String(), func(b *testing.B) {
			db := testdb.New(b, d)
			if d == saga.MySQL {
				db.DSN += "?interpolateParams=true"
				db.DB = db.Open(b)
			}
			commitMany(b, newStored(b, db))
		})
	}
	b.Run("pgx", func(b *testing.B) {
		db := testdb.New(b, saga.Postgres)
		newStored(b, db)
		pool, err := pgxpool.New(b.Context(), db.DSN)
		require.NoError(b, err)
		defer pool.Close()
		box, inbox := pgxoutbox.New(pool), pgxinbox.New(pool)
		defer box.Close()
		defer inbox.Close()
		store := pgxsaga.NewStore(pool, box, inbox)
		defer store.Close()
		commitMany(b, store)
	})
}

type nowhere struct{}

func (nowhere) Publish(string, ...*message.Message) error { return nil }
func (nowhere) Close() error                              { return nil }

// commitMany commits to instances of ten transitions.
func commitMany(b *testing.B, store saga.Store) {
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		b.StopTimer()
		c := transition(fmt.Sprint(n/10), int64(n%10+1))
		n++
		b.StartTimer()
		if err := store.Commit(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}
