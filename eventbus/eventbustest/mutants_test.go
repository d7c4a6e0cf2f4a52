package eventbustest

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/membus"
)

// mutant is the memory broker with one promise broken.
type mutant struct {
	driver.Broker
	publish   func(b driver.Broker, topic string, m []*message.Message) error
	subscribe func(*driver.Subscription)
	handle    func(d *driver.Delivery, next func(*driver.Delivery) driver.Result) driver.Result
	abandon   bool // Run does not wait
	immortal  bool // Close does nothing
}

func (b *mutant) Publish(topic string, m ...*message.Message) error {
	if b.publish != nil {
		return b.publish(b.Broker, topic, m)
	}
	return b.Broker.Publish(topic, m...)
}

func (b *mutant) Subscribe(ctx context.Context, s driver.Subscription) (driver.Consumer, error) {
	if b.subscribe != nil {
		b.subscribe(&s)
	}
	if next := s.Handle; b.handle != nil && next != nil {
		s.Handle = func(d *driver.Delivery) driver.Result { return b.handle(d, next) }
	}
	c, err := b.Broker.Subscribe(ctx, s)
	if b.abandon && err == nil {
		c = abandoning{c}
	}
	return c, err
}

func (b *mutant) Close() error {
	if b.immortal {
		return nil
	}
	return b.Broker.Close()
}

type abandoning struct{ driver.Consumer }

func (a abandoning) Run(ctx context.Context) error {
	go func() { _ = a.Consumer.Run(ctx) }()
	<-ctx.Done()
	return nil
}

// copies lets a mutant change what is published.
func copies(messages []*message.Message, change func(*message.Message)) []*message.Message {
	changed := make([]*message.Message, len(messages))
	for i, m := range messages {
		changed[i] = m.Copy()
		changed[i].SetContext(m.Context())
		change(changed[i])
	}
	return changed
}

// mutants names, for each broken promise, a row that must notice.
var mutants = map[string]struct {
	row    string
	broken mutant
}{
	"loses metadata": {"round_trip", mutant{handle: func(d *driver.Delivery, next func(*driver.Delivery) driver.Result) driver.Result {
		delete(d.Message.Metadata, "bytes")
		return next(d)
	}}},
	"delivers twice": {"publish_many", mutant{handle: func(d *driver.Delivery, next func(*driver.Delivery) driver.Result) driver.Result {
		next(d)
		return next(d)
	}}},
	"loses an event": {"publish_many", mutant{publish: func(b driver.Broker, topic string, m []*message.Message) error {
		if m[0].UUID == "p3-7" {
			return nil
		}
		return b.Publish(topic, m...)
	}}},
	"reverses a batch": {"publish_batch", mutant{publish: func(b driver.Broker, topic string, m []*message.Message) error {
		m = slices.Clone(m)
		slices.Reverse(m)
		return b.Publish(topic, m...)
	}}},
	"has one group": {"group_fan_out", mutant{subscribe: func(s *driver.Subscription) { s.Group = "one" }}},
	"starts every group at the oldest": {"start_newest", mutant{subscribe: func(s *driver.Subscription) {
		s.Start = driver.StartOldest
	}}},
	"acknowledges whatever the handler says": {"nack", mutant{handle: func(d *driver.Delivery, next func(*driver.Delivery) driver.Result) driver.Result {
		next(d)
		return driver.Result{}
	}}},
	"forgets the attempt": {"nack", mutant{handle: func(d *driver.Delivery, next func(*driver.Delivery) driver.Result) driver.Result {
		d.Attempt = 1
		return next(d)
	}}},
	"does not hold the key": {"nack_with_delay_holding", mutant{handle: func(d *driver.Delivery, next func(*driver.Delivery) driver.Result) driver.Result {
		res := next(d)
		res.Hold = false
		return res
	}}},
	"always holds the key": {"nack_with_delay", mutant{handle: func(d *driver.Delivery, next func(*driver.Delivery) driver.Result) driver.Result {
		res := next(d)
		res.Hold = true
		return res
	}}},
	"redelivers at once": {"nack_with_delay_holding", mutant{handle: func(d *driver.Delivery, next func(*driver.Delivery) driver.Result) driver.Result {
		res := next(d)
		res.Delay = 0
		return res
	}}},
	"ignores due times": {"delay", mutant{publish: func(b driver.Broker, topic string, m []*message.Message) error {
		return b.Publish(topic, copies(m, func(m *message.Message) { delete(m.Metadata, driver.MetadataDue) })...)
	}}},
	"has no order": {"key_order", mutant{publish: func(b driver.Broker, topic string, m []*message.Message) error {
		return b.Publish(topic, copies(m, func(m *message.Message) { delete(m.Metadata, driver.MetadataKey) })...)
	}}},
	"handles one at a time": {"keyed_concurrency", mutant{subscribe: func(s *driver.Subscription) { s.Concurrency = 1 }}},
	"handles too many at a time": {"concurrency_limit", mutant{subscribe: func(s *driver.Subscription) {
		s.Concurrency *= 2
	}}},
	"does not drain": {"drain", mutant{abandon: true}},
	"takes any size": {"too_large", mutant{publish: func(b driver.Broker, topic string, m []*message.Message) error {
		return b.Publish(topic, copies(m, func(m *message.Message) { m.Payload = m.Payload[:min(len(m.Payload), 10)] })...)
	}}},
	"publishes what was cancelled": {"publish_cancelled", mutant{publish: func(b driver.Broker, topic string, m []*message.Message) error {
		return b.Publish(topic, copies(m, func(m *message.Message) { m.SetContext(context.Background()) })...)
	}}},
	"never closes": {"closed", mutant{immortal: true}},
}

const mutantVariable = "MILLRACE_MUTANT"

// TestMutant runs the suite on one mutant, for TestSuiteNoticesBrokenPromises.
func TestMutant(t *testing.T) {
	m, ok := mutants[os.Getenv(mutantVariable)]
	if !ok {
		t.Skip("runs only within TestSuiteNoticesBrokenPromises")
	}
	patience = 2 * time.Second
	Run(t, func(t *testing.T) Backend {
		memory, err := membus.New(membus.Config{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, memory.Close()) })
		broken := m.broken
		broken.Broker = memory
		return Backend{Open: func() (driver.Broker, error) { return &broken, nil }}
	})
}

// A suite that passes whatever the driver does is worth nothing.
func TestSuiteNoticesBrokenPromises(t *testing.T) {
	why := map[string]string{}
	for _, r := range rows {
		why[r.name] = r.why
	}
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run", "^TestMutant$/^"+m.row+"$")
			cmd.Env = append(os.Environ(), mutantVariable+"="+name)
			output, err := cmd.CombinedOutput()
			require.Error(t, err, "row %s passed", m.row)
			require.Contains(t, string(output), why[m.row], "the failure prints the rule")
		})
	}
}
