package amqpbus

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// The benchmarks stand beside what a plain client does at best: raw publishes
// with a window of 256 deferred confirms, raw consumes with a prefetch of 256 and
// acknowledges 64 at a time. All on quorum queues of the same kind, 1 KiB events.

var payload = make([]byte, 1024)

func benchMessage(i int) *message.Message {
	m := message.NewMessage(fmt.Sprint("id-", i), payload)
	m.Metadata[driver.MetadataKey] = fmt.Sprint("k", i%64)
	return m
}

// benchType is the type of queues, classic if the variable says so.
func benchType() string { return cmp.Or(os.Getenv("MILLRACE_BENCH_QUEUE_TYPE"), QuorumQueue) }

func perSecond(b *testing.B, n int) {
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

// group makes a group that exists and that nobody reads.
func group(b *testing.B, bus *Broker) (topic string) {
	topic = topicFor(b)
	require.NoError(b, bus.Provision(b.Context(), topic, "g"))
	return topic
}

func BenchmarkPublishRawWindow256(b *testing.B) { publishRaw(b, 256) }
func BenchmarkPublishRawWindow100(b *testing.B) { publishRaw(b, 100) }
func BenchmarkPublishRawWindow1(b *testing.B)   { publishRaw(b, 1) }

func publishRaw(b *testing.B, window int) {
	topic := group(b, openWith(b, "?queue_type="+benchType()))
	ch := raw(b)
	require.NoError(b, ch.Confirm(false))
	i := 0
	for b.Loop() {
		rawPublish(b, ch, topic, i, window)
		i += 4 * window
	}
	perSecond(b, i)
}

// rawPublish publishes four windows.
func rawPublish(b *testing.B, ch *amqp.Channel, topic string, from, window int) {
	n := 4 * window
	confirms := make([]*amqp.DeferredConfirmation, 0, window)
	for i := from; i < from+n; i++ {
		key := fmt.Sprint("k", i%64)
		id := fmt.Sprint("id-", i)
		c, err := ch.PublishWithDeferredConfirm(topic, slotNames[slotOf(key)], true, false, amqp.Publishing{
			Headers: amqp.Table{headerUUID: id, "cloudEvents:partitionkey": key}, MessageId: id, DeliveryMode: amqp.Persistent, Body: payload,
		})
		require.NoError(b, err)
		if confirms = append(confirms, c); len(confirms) == window {
			for _, c := range confirms {
				require.True(b, c.Wait())
			}
			confirms = confirms[:0]
		}
	}
}

func BenchmarkPublishBatchesOf100(b *testing.B)  { publishBatches(b, 100) }
func BenchmarkPublishBatchesOf1000(b *testing.B) { publishBatches(b, 1000) }
func BenchmarkPublishSerial(b *testing.B)        { publishBatches(b, 1) }

func publishBatches(b *testing.B, size int) {
	bus := openWith(b, "?queue_type="+benchType())
	topic := group(b, bus)
	n := 0
	batch := make([]*message.Message, size)
	for b.Loop() {
		for i := range batch {
			batch[i] = benchMessage(n + i)
		}
		require.NoError(b, bus.Publish(topic, batch...))
		n += size
	}
	perSecond(b, n)
}

func BenchmarkPublishFrom64(b *testing.B) {
	bus := openWith(b, "?queue_type="+benchType())
	topic := group(b, bus)
	var n atomic.Int64
	b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := bus.Publish(topic, benchMessage(int(n.Add(1)))); err != nil {
				b.Error(err)
			}
		}
	})
	perSecond(b, b.N)
}

const backlog = 20000

func fill(b *testing.B, bus *Broker, topic string) {
	b.StopTimer()
	for n := 0; n < backlog; n += 1000 {
		batch := make([]*message.Message, 1000)
		for i := range batch {
			batch[i] = benchMessage(n + i)
		}
		require.NoError(b, bus.Publish(topic, batch...))
	}
	b.StartTimer()
}

func BenchmarkConsumeRawPrefetch256(b *testing.B) {
	bus := openWith(b, "?queue_type="+benchType())
	topic := group(b, bus)
	for range b.N {
		fill(b, bus, topic)
		consumeRaw(b, topic, bus.cfg.Queues)
	}
	perSecond(b, backlog*b.N)
}

func consumeRaw(b *testing.B, topic string, queues int) {
	var total atomic.Int64
	done := make(chan struct{})
	for q := range queues {
		ch := raw(b)
		defer ch.Close()
		require.NoError(b, ch.Qos(256, 0, false))
		got, err := ch.Consume(queueName(topic+":g", q), "", false, false, false, false, nil)
		require.NoError(b, err)
		go func() {
			var last amqp.Delivery
			for n := 1; ; n++ {
				d, ok := <-got
				if !ok {
					return
				}
				if last = d; n%64 == 0 {
					_ = last.Ack(true)
				}
				if total.Add(1) == backlog {
					close(done)
				}
			}
		}()
	}
	<-done
	b.StopTimer()
	for q := range queues { // what is left was not a multiple of 64
		_, _ = raw(b).QueuePurge(queueName(topic+":g", q), false)
	}
}

func BenchmarkConsume(b *testing.B) {
	bus := openWith(b, "?queue_type="+benchType())
	topic := group(b, bus)
	for range b.N {
		fill(b, bus, topic)
		consume(b, bus, topic, 8, 0)
	}
	perSecond(b, backlog*b.N)
}

func consume(b *testing.B, bus *Broker, topic string, workers int, work time.Duration) {
	var handled atomic.Int64
	done := make(chan struct{})
	stop := start(b, bus, driver.Subscription{Topic: topic, Concurrency: workers, Handle: func(*driver.Delivery) driver.Result {
		if work > 0 {
			time.Sleep(work)
		}
		if handled.Add(1) == backlog {
			close(done)
		}
		return driver.Result{}
	}})
	<-done
	b.StopTimer()
	stop()
}

// 64 keys, 1 ms of work each: one at a time that is under 1000 events/s.
func BenchmarkConsume1msHandlers64Keys(b *testing.B) {
	bus := openWith(b, "?queue_type="+benchType())
	topic := group(b, bus)
	for range b.N {
		fill(b, bus, topic)
		consume(b, bus, topic, 64, time.Millisecond)
	}
	perSecond(b, backlog*b.N)
}
