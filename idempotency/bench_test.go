package idempotency_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/millrace-go/millrace/idempotency"
)

// BenchmarkOnce compares a business transaction alone with the same one that
// also marks its event, and with a duplicate (synchronous=FULL).
func BenchmarkOnce(b *testing.B) {
	b.Run("business", func(b *testing.B) {
		db := newDB(b)
		b.ReportAllocs()
		for b.Loop() {
			tx, err := db.BeginTx(context.Background(), nil)
			if err != nil {
				b.Fatal(err)
			}
			if err := effect(context.Background(), tx, event("e1")); err != nil {
				b.Fatal(err)
			}
			if err := tx.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("once", func(b *testing.B) {
		handle := idempotency.Once(newInbox(b, newDB(b)), effect)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			if err := handle(context.Background(), event("0198c5a1-7a3e-7cc3-98f5-"+strconv.Itoa(100_000_000_000+i))); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("duplicate", func(b *testing.B) {
		handle := idempotency.Once(newInbox(b, newDB(b)), effect)
		b.ReportAllocs()
		for b.Loop() {
			if err := handle(context.Background(), event("e1")); err != nil {
				b.Fatal(err)
			}
		}
	})
}
