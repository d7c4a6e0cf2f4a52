package kafkabus

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Every benchmark is beside the client alone, on the embedded Kafka, with 8
// partitions, 1 KiB and what an event has of headers. The unit is one event.

const benchTopics = 64

func benchCluster(b *testing.B) *kfake.Cluster {
	b.Helper()
	names := make([]string, benchTopics)
	for i := range names {
		names[i] = fmt.Sprint("t", i)
	}
	return cluster(b, kfake.SeedTopics(8, names...))
}

func rawClient(b *testing.B, k *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	b.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.ListenAddrs()...), kgo.ProducerBatchCompression(kgo.NoCompression())}, opts...)...)
	require.NoError(b, err)
	b.Cleanup(cl.Close)
	return cl
}

var kibibyte = make([]byte, 1024)

func benchMessages(n int) []*message.Message {
	all := make([]*message.Message, n)
	for i := range all {
		m := message.NewMessage("0192f0c1-7f3a-7c3e-8a52-0123456789ab", kibibyte)
		key := "key-" + strconv.Itoa(i%50)
		for name, value := range map[string]string{driver.MetadataKey: key, "ce_id": m.UUID, "ce_type": "order.placed", "ce_source": "shop", "ce_time": "2026-11-21T01:02:03Z", "content-type": "application/json"} {
			m.Metadata[name] = value
		}
		all[i] = m
	}
	return all
}

func benchRecords(topic string, n int) []*kgo.Record {
	all := make([]*kgo.Record, n)
	for i, m := range benchMessages(n) {
		r := &kgo.Record{Topic: topic, Key: []byte(driver.Key(m)), Value: m.Payload, Headers: []kgo.RecordHeader{{Key: headerUUID, Value: []byte(m.UUID)}}}
		for name, value := range m.Metadata {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
		}
		all[i] = r
	}
	return all
}

func BenchmarkPublish(b *testing.B) {
	for _, batch := range []int{1, 100} {
		for _, callers := range []int{1, 64} {
			name := fmt.Sprintf("batch=%d/callers=%d", batch, callers)
			b.Run(name+"/millrace", func(b *testing.B) {
				bus := dial(b, benchCluster(b), Config{})
				spread(b, batch, callers, func() func() error {
					messages := benchMessages(batch)
					return func() error { return bus.Publish("t0", messages...) }
				})
			})
			for _, linger := range []time.Duration{0, 10 * time.Millisecond} {
				b.Run(name+"/client-sync-linger="+linger.String(), func(b *testing.B) {
					cl := rawClient(b, benchCluster(b), kgo.ProducerLinger(linger))
					spread(b, batch, callers, func() func() error {
						return func() error { return cl.ProduceSync(context.Background(), benchRecords("t0", batch)...).FirstErr() }
					})
				})
			}
		}
	}
	b.Run("client-async", func(b *testing.B) {
		cl := rawClient(b, benchCluster(b))
		b.ReportAllocs()
		records := benchRecords("t0", 100)
		for i := 0; b.Loop(); i++ {
			r := *records[i%100]
			cl.Produce(context.Background(), &r, nil)
		}
		require.NoError(b, cl.Flush(context.Background()))
	})
}

// spread has callers publish b.N events together.
func spread(b *testing.B, batch, callers int, caller func() func() error) {
	b.Helper()
	b.ReportAllocs()
	publish := make([]func() error, callers)
	for i := range publish {
		publish[i] = caller()
	}
	require.NoError(b, publish[0]()) // connects
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for _, p := range publish {
		wg.Go(func() {
			for next.Add(int64(batch)) <= int64(b.N)+int64(batch)-1 {
				if err := p(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkConsume(b *testing.B) {
	k := benchCluster(b)
	fill := func(b *testing.B, topic string) {
		cl := rawClient(b, k)
		for range (b.N + 99) / 100 {
			for _, r := range benchRecords(topic, 100) {
				cl.Produce(context.Background(), r, nil)
			}
		}
		require.NoError(b, cl.Flush(context.Background()))
	}
	n := 0
	next := func() string { n++; return fmt.Sprint("t", n%benchTopics) }
	for _, workers := range []int{1, 8} {
		b.Run(fmt.Sprintf("millrace/workers=%d", workers), func(b *testing.B) {
			bus, topic := dial(b, k, Config{}), next()
			fill(b, topic)
			var handled atomic.Int64
			done := make(chan struct{})
			b.ReportAllocs()
			first := sync.OnceFunc(b.ResetTimer)
			start(b, bus, driver.Subscription{Topic: topic, Group: topic, Concurrency: workers, Handle: func(*driver.Delivery) driver.Result {
				first()
				if handled.Add(1) == int64(b.N) {
					close(done)
				}
				return driver.Result{}
			}})
			receive(b, done)
			b.StopTimer()
		})
	}
	b.Run("client", func(b *testing.B) {
		topic := next()
		fill(b, topic)
		cl := rawClient(b, k, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(topic), kgo.AutoCommitMarks(), kgo.AutoCommitInterval(100*time.Millisecond))
		b.ReportAllocs()
		for handled := 0; handled < b.N; {
			fetches := cl.PollRecords(context.Background(), 256)
			if handled == 0 {
				b.ResetTimer()
			}
			fetches.EachRecord(func(r *kgo.Record) { cl.MarkCommitRecords(r) })
			handled += fetches.NumRecords()
		}
		b.StopTimer()
	})
}
