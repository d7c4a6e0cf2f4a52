package membus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/membus"
)

func event(id string) *message.Message {
	m := message.NewMessage(id, []byte("x"))
	m.Metadata[driver.MetadataKey] = "k"
	return m
}

func newBroker(t *testing.T, c membus.Config) *membus.Broker {
	t.Helper()
	b, err := membus.New(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// join runs a consumer until the test ends or stop is called.
func join(t *testing.T, b *membus.Broker, group string, handle func(*driver.Delivery) driver.Result) (stop func()) {
	t.Helper()
	c, err := b.Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: group, Concurrency: 2, Handle: handle})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestPublishWaitsForTheSlowestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, membus.Config{Buffer: 3})
		release := make(chan struct{})
		join(t, b, "slow", func(*driver.Delivery) driver.Result { <-release; return driver.Result{} })
		join(t, b, "fast", func(*driver.Delivery) driver.Result { return driver.Result{} })
		require.NoError(t, b.Publish("t", event("1"), event("2"), event("3")))

		published := make(chan error, 1)
		go func() { published <- b.Publish("t", event("4")) }()
		synctest.Wait()
		require.Empty(t, published, "the slow group has three events outstanding")

		reason := errors.New("request timed out")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, reason)
		defer cancel()
		m := event("5")
		m.SetContext(ctx)
		require.ErrorIs(t, b.Publish("t", m), reason)

		close(release)
		require.NoError(t, <-published)
	})
}

func TestBufferIsBoundedInBytesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, membus.Config{BufferBytes: 10})
		release := make(chan struct{})
		join(t, b, "g", func(*driver.Delivery) driver.Result { <-release; return driver.Result{} })
		big := message.NewMessage("big", make([]byte, 100))
		require.NoError(t, b.Publish("t", big), "one event is always taken")
		published := make(chan error, 1)
		go func() { published <- b.Publish("t", event("small")) }()
		synctest.Wait()
		require.Empty(t, published)
		close(release)
		require.NoError(t, <-published)
	})
}

func TestDelayedRedeliveryKeepsItsPlaceInTheBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, membus.Config{Buffer: 1})
		join(t, b, "g", func(d *driver.Delivery) driver.Result {
			return driver.Result{Redeliver: d.Attempt == 1, Delay: time.Hour}
		})
		require.NoError(t, b.Publish("t", event("1")))
		synctest.Wait()
		start := time.Now()
		require.NoError(t, b.Publish("t", event("2")))
		require.Equal(t, time.Hour, time.Since(start))
	})
}

func TestDelayedEventsAreBounded(t *testing.T) {
	b := newBroker(t, membus.Config{Buffer: 2})
	later := func(id string) *message.Message {
		m := event(id)
		driver.SetDue(m, time.Now().Add(time.Hour))
		return m
	}
	require.NoError(t, b.Publish("t", later("1"), later("2")))
	require.EqualError(t, b.Publish("t", later("3")), `topic "t": 2 events are waiting for their due time, the buffer holds 2`)
}

func TestTopicWithoutGroupKeepsTheLatestAndWarns(t *testing.T) {
	var log bytes.Buffer
	b := newBroker(t, membus.Config{Buffer: 3, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range 10 {
		require.NoError(t, b.Publish("t", event(fmt.Sprint(i))))
	}
	require.Equal(t, 1, strings.Count(log.String(), "over its buffer"), "warned once: %s", log.String())
	got := make(chan string, 10)
	join(t, b, "g", func(d *driver.Delivery) driver.Result { got <- d.Message.UUID; return driver.Result{} })
	require.Equal(t, []string{"7", "8", "9"}, []string{<-got, <-got, <-got})
}

func TestCloseReleasesWaitingPublishers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := membus.New(membus.Config{Buffer: 1})
		require.NoError(t, err)
		_, err = b.Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: "g", Concurrency: 1, Handle: func(*driver.Delivery) driver.Result { return driver.Result{} }})
		require.NoError(t, err)
		require.NoError(t, b.Publish("t", event("1")))
		published := make(chan error, 1)
		go func() { published <- b.Publish("t", event("2")) }()
		synctest.Wait()
		require.NoError(t, b.Close())
		require.ErrorIs(t, <-published, driver.ErrClosed)
	})
}

func TestConfigIsChecked(t *testing.T) {
	_, err := membus.New(membus.Config{Buffer: -1})
	require.EqualError(t, err, "membus: Buffer must not be negative, got -1")
}

func ExampleNew() {
	broker, err := membus.New(membus.Config{Buffer: 100})
	if err != nil {
		panic(err)
	}
	defer broker.Close()
	err = broker.Publish("greetings", message.NewMessage("id-1", []byte("hello")))
	fmt.Println(err, broker.Capabilities().KeyOrder)
	// Output: <nil> true
}
