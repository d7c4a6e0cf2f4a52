package main

import (
	"os"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/saga"
)

// nowhere takes messages.
type nowhere struct{}

func (nowhere) Publish(string, ...*message.Message) error { return nil }
func (nowhere) Close() error                              { return nil }

// BenchmarkSaga is the same as the command's tables, for go test's tools; PostgreSQL's only
// where there is a server.
func BenchmarkSaga(b *testing.B) {
	b.Run("memory", func(b *testing.B) {
		s := &ours{Store: saga.NewMemoryStore(nowhere{})}
		if err := s.orchestrate(saga.Config{}); err != nil {
			b.Fatal(err)
		}
		s.benchmark(b)
	})
	b.Run("SQLite", func(b *testing.B) {
		db, drop, err := openSQLite()
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = drop() }()
		s, err := onSQL(b.Context(), db, saga.SQLite)
		if err != nil {
			b.Fatal(err)
		}
		s.benchmark(b)
	})
	b.Run("PostgreSQL", func(b *testing.B) {
		server := os.Getenv("MILLRACE_TEST_POSTGRES_URL")
		if server == "" {
			b.Skip("MILLRACE_TEST_POSTGRES_URL names no server")
		}
		dsn, drop, err := newDatabase(b.Context(), server)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = drop() }()
		all, err := open(b.Context(), dsn, plan{})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = all.close() }()
		for _, v := range all.variants() {
			b.Run(v.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := v.run(0); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	})
}

func (s *ours) benchmark(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if err := s.execute(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
