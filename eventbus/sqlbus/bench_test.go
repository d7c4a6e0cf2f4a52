package sqlbus

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// onEach runs bench on every database; open returns another Broker on it.
func onEach(b *testing.B, bench func(b *testing.B, open func() *Broker)) {
	b.Run("sqlite", func(b *testing.B) {
		path := tempPath(b)
		bench(b, func() *Broker { return openAt(b, path, Config{}) })
	})
	for _, name := range servers {
		b.Run(name, func(b *testing.B) {
			url := newDatabase(b, name)
			bench(b, func() *Broker { return openOn(b, url, Config{}) })
		})
	}
}

func BenchmarkPublishSerial(b *testing.B) { onEach(b, publishSerial) }

func publishSerial(b *testing.B, open func() *Broker) {
	bus := open()
	for i := 0; b.Loop(); i++ {
		require.NoError(b, bus.Publish("t", msg("k", i)))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkPublishFrom64(b *testing.B) { onEach(b, publishFrom64) }

func publishFrom64(b *testing.B, open func() *Broker) {
	bus := open()
	var n atomic.Int64
	b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			if err := bus.Publish("t", msg(fmt.Sprint(i%100), i)); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkPublishBatchesOf100(b *testing.B) { onEach(b, publishBatchesOf100) }

func publishBatchesOf100(b *testing.B, open func() *Broker) {
	bus := open()
	for b.Loop() {
		require.NoError(b, bus.Publish("t", batch(100)...))
	}
	b.ReportMetric(float64(100*b.N)/b.Elapsed().Seconds(), "events/s")
}

func batch(n int) []*message.Message {
	all := make([]*message.Message, n)
	for i := range all {
		all[i] = msg(fmt.Sprint("k", i), i)
	}
	return all
}

// One event at a time, from Publish to the handler.
func BenchmarkPublishToHandled(b *testing.B) { onEach(b, publishToHandled) }

func publishToHandled(b *testing.B, open func() *Broker) {
	bus := open()
	got := make(chan *driver.Delivery, 1)
	start(b, bus, driver.Subscription{Concurrency: 4, Handle: into(got)})
	for i := 0; b.Loop(); i++ {
		require.NoError(b, bus.Publish("t", msg("k", i)))
		receive(b, got)
	}
}

// The same between two Brokers: what a second process sees.
func BenchmarkPublishToHandledElsewhere(b *testing.B) { onEach(b, publishToHandledElsewhere) }

func publishToHandledElsewhere(b *testing.B, open func() *Broker) {
	bus, other := open(), open()
	got := make(chan *driver.Delivery, 1)
	start(b, other, driver.Subscription{Concurrency: 4, Handle: into(got)})
	for i := 0; b.Loop(); i++ {
		require.NoError(b, bus.Publish("t", msg("k", i)))
		receive(b, got)
	}
}

// A backlog is read, handled and committed.
func BenchmarkConsumeBacklog(b *testing.B) { onEach(b, consumeBacklog) }

func consumeBacklog(b *testing.B, open func() *Broker) {
	bus := open()
	const n = 20000
	for range n / 1000 {
		require.NoError(b, bus.Publish("t", batch(1000)...))
	}
	for i := 0; b.Loop(); i++ {
		var handled atomic.Int64
		done := make(chan struct{})
		stop := start(b, bus, driver.Subscription{Group: fmt.Sprint("g", i), Concurrency: 8, Handle: func(*driver.Delivery) driver.Result {
			if handled.Add(1) == n {
				close(done)
			}
			return driver.Result{}
		}})
		receive(b, done)
		stop()
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "events/s")
}
