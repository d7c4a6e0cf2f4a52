package eventbus_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
)

func TestOpenRefusesBadURLsAndSaysWhatWouldDo(t *testing.T) {
	for url, want := range map[string]string{
		"carrier-pigeon:":                 "eventbus: open carrier-pigeon:: unknown scheme \"carrier-pigeon:\" in broker URL (registered: memory)",
		"sqlite:bus.db":                   `eventbus: open sqlite:bus.db: the driver for "sqlite:" is not linked in; add: import _ "github.com/millrace-go/millrace/eventbus/sqlbus" (registered: memory)`,
		"memory:?bufer=10":                `eventbus: open memory:?bufer=10: membus: unknown parameter "bufer" (did you mean "buffer"?); known: buffer, buffer_bytes, max_payload, prefix`,
		"memory:?buffer=ten":              `eventbus: open memory:?buffer=ten: membus: parameter buffer="ten": want a whole number from 1 to 2147483647`,
		"memory:?buffer=1&buffer=2":       `eventbus: open memory:?buffer=1&buffer=2: membus: parameter "buffer" is given 2 times`,
		"memory://host":                   `eventbus: open memory://host: membus: a memory: URL has no host and no path; every Open is a broker of its own`,
		"just-a-name":                     `eventbus: open just-a-name: broker URL has no scheme; write one of: memory:`,
		"pulsar://u:geheim@h/?x=%zz":      `eventbus: open pulsar://u:xxxxx@h/?x=%zz: unknown scheme "pulsar:" in broker URL (registered: memory)`,
		"kafka://u:geheim@h:port":         `eventbus: open (unparsable URL): broker URL can't be parsed; if it holds a password, check that '#', '/', '@' and the like are percent-encoded in it`,
		"amqp://user:geheim#t@host":       `eventbus: open (unparsable URL): broker URL can't be parsed; if it holds a password, check that '#', '/', '@' and the like are percent-encoded in it`,
		"kafka://h/?sasl_password=geheim": `eventbus: open kafka://h/?sasl_password=xxxxx: the driver for "kafka:" is not linked in; add: import _ "github.com/millrace-go/millrace/eventbus/kafkabus" (registered: memory)`,
	} {
		_, err := eventbus.Open(t.Context(), url)
		require.EqualError(t, err, want, url)
		require.NotContains(t, err.Error(), "geheim")
	}
}

func noop(context.Context, eventbus.Event[orderPlaced]) error { return nil }

func TestServiceReportsEveryMistakeAtStart(t *testing.T) {
	bus := openMemory(t)
	svc := eventbus.NewService("billing", bus)
	eventbus.Subscribe(svc, ordersPlaced, nil)
	eventbus.Subscribe(svc, ordersBilled, noop)
	eventbus.Subscribe(svc, ordersBilled, noop)
	eventbus.Subscribe(svc, ordersBilled, noop, eventbus.Named("bad name"))
	eventbus.Subscribe(svc, ordersBilled, noop, eventbus.Named("odd"), eventbus.Concurrency(0), eventbus.Timeout(0),
		eventbus.Retry(eventbus.RetryPolicy{Tries: -1, Backoff: -1, Delays: []time.Duration{0}, Redeliveries: -1}))
	eventbus.Subscribe(svc, eventbus.Topic[orderPlaced]{}, noop)
	svc.Handle("billing.dead-letter", func(*message.Message) error { return nil })
	svc.Add(nil)
	svc.Use(nil)
	err := svc.Run(t.Context())
	for _, want := range []string{
		`eventbus: service "billing": the zero Topic can't be subscribed to; make one with NewTopic`,
		`runner 1 is nil`,
		`middleware 1 is nil`,
		`handler of topic "orders.placed" in group "billing": the function is nil`,
		`handler of topic "orders.billed" in group "billing": the service has two handlers of this name for the topic; give one another name with eventbus.Named`,
		`group "billing.bad name": use 1 to 249 letters, digits, '.', '_' or '-'`,
		`Concurrency must be at least 1, got 0`,
		`Timeout must not be 0`,
		`Tries must be at least 1, got -1`,
		`Backoff must not be negative, got -1ns`,
		`Delays[0] must be positive, got 0s`,
		`Redeliveries must not be negative, got -1`,
		`this is the service's own dead-letter topic`,
	} {
		require.ErrorContains(t, err, want)
	}
	require.EqualError(t, eventbus.NewService("billing", bus).Run(t.Context()), `eventbus: service "billing": there is no handler and no runner`)
	require.ErrorContains(t, eventbus.NewService("billing", nil).Run(t.Context()), "the bus is nil")
}

func TestServiceRunsOnce(t *testing.T) {
	bus := openMemory(t)
	svc := eventbus.NewService("billing", bus)
	eventbus.Subscribe(svc, ordersPlaced, noop)
	require.NoError(t, run(t, svc)())
	require.EqualError(t, svc.Run(t.Context()), `eventbus: service "billing": Run was called twice; make a new Service to run again`)
}

func TestFailingRunnerEndsTheService(t *testing.T) {
	bus := openMemory(t)
	for name, runner := range map[string]eventbus.RunnerFunc{
		"runner 1 (eventbus.RunnerFunc) ended: disk gone":                                  func(context.Context) error { return errors.New("disk gone") },
		"runner 1 (eventbus.RunnerFunc) ended: it returned before the service was stopped": func(context.Context) error { return nil },
	} {
		svc := eventbus.NewService("billing", bus)
		svc.Add(runner)
		require.EqualError(t, svc.Run(t.Context()), `eventbus: service "billing": `+name)
	}
}

func TestTopicsAreCheckedWhenDeclared(t *testing.T) {
	require.PanicsWithValue(t, `eventbus: NewTopic: invalid name: topic "a b": use 1 to 249 letters, digits, '.', '_' or '-'`, func() { eventbus.NewTopic[int]("a b") })
	_, err := eventbus.ParseTopic[int]("ints", eventbus.KeyBy(func(string) string { return "" }))
	require.EqualError(t, err, `topic "ints": KeyBy was given a func(string) string, the topic's type is int`)
	_, err = eventbus.ParseTopic[int]("ints", eventbus.WithCodec(nil))
	require.EqualError(t, err, `topic "ints": the codec is nil`)
}

func TestPublishRefusesWhatItCannotSend(t *testing.T) {
	bus := openMemory(t)
	ctx := t.Context()
	require.EqualError(t, eventbus.NewTopic[chan int]("chans").Publish(ctx, bus, nil), `eventbus: publish to topic "chans": payload of type chan int can't be encoded: json: unsupported type: chan int`)
	require.EqualError(t, ordersPlaced.Publish(ctx, nil, orderPlaced{}), `eventbus: publish to topic "orders.placed": the publisher is nil`)
	require.ErrorContains(t, eventbus.Topic[int]{}.Publish(ctx, bus, 1), "the zero Topic")
	require.EqualError(t, ordersPlaced.Publish(ctx, bus, orderPlaced{}, eventbus.WithMetadata("ce_id", "mine")), `eventbus: publish to topic "orders.placed": metadata "ce_id" is part of the envelope`)
	for _, name := range []string{"ce_subject", "millrace_redrive", "millrace_due", ""} {
		require.ErrorContains(t, ordersPlaced.Publish(ctx, bus, orderPlaced{}, eventbus.WithMetadata(name, "mine")), "is part of the envelope")
	}
	require.EqualError(t, ordersPlaced.PublishAll(ctx, bus, make([]orderPlaced, 2), eventbus.WithID("one")), `eventbus: publish to topic "orders.placed": WithID would give 2 events one id`)

	big := eventbus.NewTopic[[]byte]("big", eventbus.WithCodec(eventbus.Bytes))
	err := big.Publish(ctx, bus, make([]byte, 1<<20+1), eventbus.WithID("e-1"))
	require.EqualError(t, err, `eventbus: publish: topic "big": event e-1: event is too large: payload of 1048577 bytes, the limit is 1048576`)
	require.ErrorIs(t, err, eventbus.ErrTooLarge)
	require.True(t, eventbus.IsPermanent(err))
}

func TestUndecodablePayloadGoesToTheDeadLetterTopicAtOnceAndNothingElseSuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		good := make(chan string, 1)
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(_ context.Context, e eventbus.Event[orderPlaced]) error {
			good <- e.Data.OrderID
			return nil
		})
		h.Start(svc)
		bad := message.NewMessage("bad", []byte(`{"OrderID": 7}`))
		bad.Metadata["own"] = "header"
		require.NoError(t, h.Bus().Publish("orders.placed", bad))
		place(t, h.Bus(), "o-1")
		require.Equal(t, "o-1", <-good)
		h.AwaitIdle()
		require.Len(t, h.DeadLetters(), 1)
		d := h.DeadLetters()[0]
		require.Equal(t, `topic "orders.placed": event bad: payload can't be decoded as eventbus_test.orderPlaced: json: cannot unmarshal number into Go struct field orderPlaced.OrderID of type string`, d.Cause)
		require.Equal(t, 1, d.Attempts)
		require.Equal(t, `{"OrderID": 7}`, string(d.Message.Payload))
		require.Equal(t, "header", d.Message.Metadata["own"])
	})
}

func TestPanicIsAFailureLikeAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			panic(errors.New("index out of range"))
		}, eventbus.Retry(eventbus.RetryPolicy{Tries: 2, Delays: []time.Duration{}}))
		h.Start(svc)
		place(t, h.Bus(), "o-1")
		h.AwaitIdle()
		d := h.DeadLetters()[0]
		require.Equal(t, "handler panicked: index out of range", d.Cause)
		require.Equal(t, 1, d.Attempts)
		require.Contains(t, d.Stack, "badinput_test.go")
	})
}

func TestUnsupportedPolicyIsRefusedAtStart(t *testing.T) {
	bus, err := eventbus.FromWatermill(eventbus.WatermillConfig{Publisher: &nullPublisher{}})
	require.NoError(t, err)
	svc := eventbus.NewService("billing", bus)
	eventbus.Subscribe(svc, ordersPlaced, noop, eventbus.Retry(eventbus.RetryPolicy{Delays: []time.Duration{time.Second}}), eventbus.Unordered())
	eventbus.Subscribe(svc, ordersBilled, noop, eventbus.Retry(eventbus.RetryPolicy{KeepOrder: true}), eventbus.Unordered())
	eventbus.Subscribe(svc, ordersPlaced, noop, eventbus.Named("second"))
	err = svc.Validate()
	require.ErrorIs(t, err, eventbus.ErrUnsupported)
	require.ErrorContains(t, err, `handler of topic "orders.placed" in group "billing.second": the topic is ordered by key (KeyBy): not supported by this broker (*eventbus.adapter); accept that with eventbus.Unordered`)
	require.ErrorContains(t, err, `handler of topic "orders.placed" in group "billing": delayed retries that let other events overtake: not supported by this broker`)
	require.ErrorContains(t, err, `handler of topic "orders.billed" in group "billing": KeepOrder: order per key: not supported by this broker`)
	err = ordersPlaced.Publish(t.Context(), bus, orderPlaced{}, eventbus.WithDelay(time.Hour))
	require.ErrorIs(t, err, eventbus.ErrUnsupported)
	require.ErrorContains(t, err, "publish it through an outbox")
}

func TestMissingCapabilityIsRefusedAtStartNamingHandlerAndBroker(t *testing.T) {
	bus, err := eventbus.Open(t.Context(), "memory:?max_payload=1000")
	require.NoError(t, err)
	defer bus.Close()
	svc := eventbus.NewService("billing", bus)
	eventbus.Subscribe(svc, ordersPlaced, noop, eventbus.Requires(driver.Capabilities{Durable: true, KeyOrder: true, MaxPayload: 1001}))
	err = svc.Run(t.Context())
	require.ErrorIs(t, err, eventbus.ErrUnsupported)
	require.ErrorContains(t, err, `handler of topic "orders.placed" in group "billing": Requires: durable acknowledgement: not supported by this broker (memory:?max_payload=1000)`)
	require.ErrorContains(t, err, `Requires: payloads of 1001 bytes (the limit is 1000): not supported by this broker (memory:?max_payload=1000)`)
	require.NotContains(t, err.Error(), "order per key")
}

func TestSeekOnABrokerThatCannot(t *testing.T) {
	bus, err := eventbus.Open(t.Context(), "memory:")
	require.NoError(t, err)
	defer bus.Close()
	err = bus.Seek(t.Context(), "orders.placed", "billing", time.Time{})
	require.EqualError(t, err, `eventbus: seek group "billing" of topic "orders.placed": not supported by this broker (memory:)`)
	require.ErrorIs(t, err, eventbus.ErrUnsupported)
}

type nullPublisher struct{ closed int }

func (*nullPublisher) Publish(string, ...*message.Message) error { return nil }
func (p *nullPublisher) Close() error                            { p.closed++; return nil }

func TestLongCausesAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			return eventbus.Permanent(errors.New(strings.Repeat("x", 5000)))
		})
		h.Start(svc)
		place(t, h.Bus(), "o-1")
		h.AwaitIdle()
		require.Len(t, h.DeadLetters()[0].Cause, 2048)
	})
}
