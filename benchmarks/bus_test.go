package benchmarks

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/membus"
)

var payload = []byte(strings.Repeat("x", 1024))

type order struct{ ID, Pad string }

var bigOrder = order{"4711", strings.Repeat("x", 1000)}

// system is something that carries events to a handler that calls handled.
type system struct {
	name  string
	start func(b *testing.B, handled func()) (publish, stop func())
}

var systems = []system{
	{"chan buffered", buffered},
	{"chan with ack reply", withAck},
	{"watermill gochannel", goChannel},
	{"watermill router", router},
	{"watermill cqrs JSON", cqrsJSON},
	{"millrace memory driver", memoryDriver},
	{"millrace memory driver keyed", memoryDriverKeyed},
	{"millrace service bytes", serviceBytes},
	{"millrace service JSON", serviceJSON},
}

// BenchmarkBus is the time from publishing an event of 1 KiB until it is
// handled and acknowledged, with 1 and 4 publishers.
func BenchmarkBus(b *testing.B) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	for _, s := range systems {
		for _, publishers := range []int{1, 4} {
			b.Run(fmt.Sprintf("%s/publishers=%d", strings.ReplaceAll(s.name, " ", "_"), publishers), func(b *testing.B) {
				drive(b, publishers, s.start)
			})
		}
	}
}

func drive(b *testing.B, publishers int, start func(*testing.B, func()) (publish, stop func())) {
	var handled atomic.Int64
	all := make(chan struct{})
	publish, stop := start(b, func() {
		if handled.Add(1) == int64(b.N) {
			close(all)
		}
	})
	defer stop()
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				publish()
			}
		})
	}
	wg.Wait()
	<-all
	b.StopTimer()
}

func buffered(_ *testing.B, handled func()) (publish, stop func()) {
	c := make(chan []byte, 1024)
	go func() {
		for range c {
			handled()
		}
	}()
	return func() { c <- payload }, func() { close(c) }
}

func withAck(_ *testing.B, handled func()) (publish, stop func()) {
	type event struct {
		payload []byte
		ack     chan struct{}
	}
	c := make(chan event)
	go func() {
		for e := range c {
			handled()
			close(e.ack)
		}
	}()
	return func() {
		e := event{payload, make(chan struct{})}
		c <- e
		<-e.ack
	}, func() { close(c) }
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func goChannel(_ *testing.B, handled func()) (publish, stop func()) {
	ps := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 1024}, watermill.NopLogger{})
	messages := must(ps.Subscribe(context.Background(), "t"))
	go func() {
		for m := range messages {
			handled()
			m.Ack()
		}
	}()
	return func() { check(ps.Publish("t", message.NewMessage(watermill.NewUUID(), payload))) }, func() { check(ps.Close()) }
}

func startRouter(handle func(*message.Router, *gochannel.GoChannel)) (*gochannel.GoChannel, func()) {
	ps := gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
	r := must(message.NewRouter(message.RouterConfig{}, watermill.NopLogger{}))
	handle(r, ps)
	go func() { check(r.Run(context.Background())) }()
	<-r.Running()
	return ps, func() { check(r.Close()); check(ps.Close()) }
}

func router(_ *testing.B, handled func()) (publish, stop func()) {
	ps, stop := startRouter(func(r *message.Router, ps *gochannel.GoChannel) {
		r.AddConsumerHandler("h", "t", ps, func(*message.Message) error { handled(); return nil })
	})
	return func() { check(ps.Publish("t", message.NewMessage(watermill.NewUUID(), payload))) }, stop
}

func cqrsJSON(_ *testing.B, handled func()) (publish, stop func()) {
	marshaler := cqrs.JSONMarshaler{GenerateName: cqrs.StructName}
	ps, stop := startRouter(func(r *message.Router, ps *gochannel.GoChannel) {
		p := must(cqrs.NewEventProcessorWithConfig(r, cqrs.EventProcessorConfig{
			GenerateSubscribeTopic: func(p cqrs.EventProcessorGenerateSubscribeTopicParams) (string, error) { return p.EventName, nil },
			SubscriberConstructor:  func(cqrs.EventProcessorSubscriberConstructorParams) (message.Subscriber, error) { return ps, nil },
			Marshaler:              marshaler,
			Logger:                 watermill.NopLogger{},
		}))
		check(p.AddHandlers(cqrs.NewEventHandler("h", func(context.Context, *order) error { handled(); return nil })))
	})
	bus := must(cqrs.NewEventBusWithConfig(ps, cqrs.EventBusConfig{
		GeneratePublishTopic: func(p cqrs.GenerateEventPublishTopicParams) (string, error) { return p.EventName, nil },
		Marshaler:            marshaler,
		Logger:               watermill.NopLogger{},
	}))
	return func() { check(bus.Publish(context.Background(), &bigOrder)) }, stop
}

func memoryDriver(b *testing.B, handled func()) (publish, stop func()) {
	return onMemory(b, handled, func() *message.Message {
		return &message.Message{UUID: eventbus.NewID(), Payload: payload}
	})
}

func memoryDriverKeyed(b *testing.B, handled func()) (publish, stop func()) {
	var n atomic.Int64
	keys := make([]string, 64)
	for i := range keys {
		keys[i] = fmt.Sprint("key-", i)
	}
	return onMemory(b, handled, func() *message.Message {
		return &message.Message{UUID: eventbus.NewID(), Payload: payload, Metadata: message.Metadata{driver.MetadataKey: keys[n.Add(1)%64]}}
	})
}

func onMemory(_ *testing.B, handled func(), event func() *message.Message) (publish, stop func()) {
	broker := must(membus.New(membus.Config{}))
	consumer := must(broker.Subscribe(context.Background(), driver.Subscription{
		Topic: "t", Group: "g", Concurrency: 16,
		Handle: func(*driver.Delivery) driver.Result { handled(); return driver.Result{} },
	}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- consumer.Run(ctx) }()
	return func() { check(broker.Publish("t", event())) }, func() { cancel(); check(<-ended); check(broker.Close()) }
}

func serviceBytes(_ *testing.B, handled func()) (publish, stop func()) {
	return onService(eventbus.NewTopic[[]byte]("t", eventbus.WithCodec(eventbus.Bytes)), payload, handled)
}

func serviceJSON(_ *testing.B, handled func()) (publish, stop func()) {
	return onService(eventbus.NewTopic[order]("t", eventbus.KeyBy(func(o order) string { return o.ID })), bigOrder, handled)
}

// onService is the default pipeline: envelope, decoding, recovery, timeout,
// retries, dead letters.
func onService[T any](topic eventbus.Topic[T], event T, handled func()) (publish, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	bus := must(eventbus.Open(ctx, "memory:"))
	svc := eventbus.NewService("bench", bus)
	eventbus.Subscribe(svc, topic, func(context.Context, eventbus.Event[T]) error { handled(); return nil })
	ended := make(chan error)
	go func() { ended <- svc.Run(ctx) }()
	<-svc.Ready()
	return func() { check(topic.Publish(ctx, bus, event)) }, func() { cancel(); check(<-ended); check(bus.Close()) }
}
