package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

func business(b *testing.B) testdb.DB {
	b.Helper()
	db := newDB(b)
	_, err := db.Exec("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, total INTEGER NOT NULL, note TEXT NOT NULL)")
	require.NoError(b, err)
	return db
}

const insertOrder = "INSERT INTO orders (customer, total, note) VALUES (?, ?, ?)"

// event is what eventbus publishes: 1 KiB of payload and the usual attributes.
func event(ctx context.Context, payload []byte) *message.Message {
	id := eventbus.NewID()
	m := &message.Message{UUID: id, Payload: payload, Metadata: message.Metadata{
		"ce_specversion": "1.0", "ce_id": id, "ce_source": "shop", "ce_type": "orders.placed",
		"ce_time": "2026-01-02T15:04:05.123456789Z", "content-type": "application/json",
		"ce_partitionkey": "order-4711", "ce_correlationid": id,
	}}
	m.SetContext(ctx)
	return m
}

// BenchmarkEnqueue compares a business transaction alone with the same one that
// also publishes events of 1 KiB (synchronous=FULL).
func BenchmarkEnqueue(b *testing.B) {
	payload := make([]byte, 1024)
	for _, events := range []int{0, 1, 100} {
		for _, inserts := range []int{1, 100} {
			if events > inserts {
				continue
			}
			b.Run(fmt.Sprintf("inserts=%d/events=%d", inserts, events), func(b *testing.B) {
				db := business(b)
				box := newBox(b, db)
				b.ReportAllocs()
				for b.Loop() {
					err := box.Transact(context.Background(), func(ctx context.Context, tx *sql.Tx) error {
						for range inserts {
							if _, err := tx.Exec(insertOrder, "customer", 42, "note"); err != nil {
								return err
							}
						}
						var batch []*message.Message
						for range events {
							batch = append(batch, event(ctx, payload))
						}
						return box.In(tx).Publish("orders.placed", batch...)
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkEnqueueRatio takes turns between a business transaction alone and one
// that also publishes an event, so that the noise of a shared disk hits both,
// and reports the medians and their ratio.
func BenchmarkEnqueueRatio(b *testing.B) {
	payload := make([]byte, 1024)
	db, with := business(b), business(b)
	alone, box := newBox(b, db), newBox(b, with)
	var times [2][]time.Duration
	for b.Loop() {
		for i, o := range []*outbox.Outbox{alone, box} {
			began := time.Now()
			err := o.Transact(context.Background(), func(ctx context.Context, tx *sql.Tx) error {
				if _, err := tx.Exec(insertOrder, "customer", 42, "note"); err != nil || i == 0 {
					return err
				}
				return o.In(tx).Publish("orders.placed", event(ctx, payload))
			})
			if err != nil {
				b.Fatal(err)
			}
			times[i] = append(times[i], time.Since(began))
		}
	}
	median := func(d []time.Duration) float64 { slices.Sort(d); return float64(d[len(d)/2].Nanoseconds()) }
	business, both := median(times[0]), median(times[1])
	b.ReportMetric(business, "business-ns")
	b.ReportMetric(both, "both-ns")
	b.ReportMetric(both/business, "ratio")
}

// fill writes n events of 1 KiB.
func fill(b *testing.B, box *outbox.Outbox, n int) {
	b.Helper()
	payload := make([]byte, 1024)
	for n > 0 {
		var batch []*message.Message
		for range min(n, 500) {
			m := event(context.Background(), payload)
			m.Metadata["ce_partitionkey"] = "order-" + strconv.Itoa(n)
			batch, n = append(batch, m), n-1
		}
		enqueue(b, box, "orders.placed", batch...)
	}
}

// counter is a publisher that does nothing, and ends a context after n messages.
type counter struct {
	left chan int
	end  context.CancelFunc
}

func (c *counter) Close() error { return nil }

func (c *counter) Publish(_ string, messages ...*message.Message) error {
	left := <-c.left - len(messages)
	if left <= 0 {
		c.end()
	}
	c.left <- left
	return nil
}

// BenchmarkRelay compares moving n events to a publisher that does nothing,
// deletion included, with only reading the same rows in pages.
func BenchmarkRelay(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("read-only/rows=%d", n), func(b *testing.B) {
			db := newDB(b)
			fill(b, newBox(b, db), n)
			b.ReportAllocs()
			for b.Loop() {
				require.Equal(b, n, readAll(b, db))
			}
			perRow(b, n)
		})
		b.Run(fmt.Sprintf("relay/rows=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				db := newDB(b)
				box := newBox(b, db)
				fill(b, box, n)
				ctx, cancel := context.WithCancel(context.Background())
				to := &counter{left: make(chan int, 1), end: cancel}
				to.left <- n
				b.StartTimer()
				require.NoError(b, box.Relay(to).Run(ctx))
				b.StopTimer()
				require.Zero(b, count(b, db, "SELECT count(*) FROM millrace_outbox"))
				b.StartTimer()
			}
			perRow(b, n)
		})
	}
}

func perRow(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/row")
}

func readAll(b *testing.B, db testdb.DB) (n int) {
	b.Helper()
	var position int64
	for {
		page := 0
		page, position = readPage(b, db, position)
		if n += page; page < 1000 {
			return n
		}
	}
}

func readPage(b *testing.B, db testdb.DB, after int64) (n int, position int64) {
	b.Helper()
	rows, err := db.Query("SELECT position, id, topic, key, metadata, payload FROM millrace_outbox WHERE position > ? ORDER BY position LIMIT 1000", after)
	require.NoError(b, err)
	defer rows.Close()
	for rows.Next() {
		var id, topic, key string
		var metadata, payload []byte
		if err := rows.Scan(&position, &id, &topic, &key, &metadata, &payload); err != nil {
			b.Fatal(err)
		}
		n++
	}
	require.NoError(b, rows.Err())
	return n, position
}
