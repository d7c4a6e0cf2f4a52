package kafkabus

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/internal/testserver"
)

func TestConformance(t *testing.T) {
	k := cluster(t)
	eventbustest.Run(t, func(t *testing.T) eventbustest.Backend {
		return backend("kafka://"+strings.Join(k.ListenAddrs(), ","), "1s")
	})
}

// The same on a real Kafka.
func TestConformanceServer(t *testing.T) {
	url := testserver.URL(t, testserver.Kafka)
	eventbustest.Run(t, func(t *testing.T) eventbustest.Backend {
		b := backend(url, "6s")
		b.Remove = func(topic string, groups []string) { removeFrom(t, url, topic, groups) }
		return b
	})
}

func backend(url, session string) eventbustest.Backend {
	open := func(url string) func() (driver.Broker, error) {
		return func() (driver.Broker, error) {
			return driver.Open(context.Background(), url, driver.Options{Logger: quiet()})
		}
	}
	full := url + "?partitions=8&session_timeout=" + session
	return eventbustest.Backend{Open: open(full), URL: full, OpenUnprovisioned: open(url + "?provision=false")}
}

// removeFrom leaves nothing of a test on a shared server.
func removeFrom(t testing.TB, url, topic string, groups []string) {
	t.Helper()
	config, err := parse(parseURL(t, url))
	require.NoError(t, err)
	cl, err := kgo.NewClient(kgo.SeedBrokers(config.Brokers...))
	require.NoError(t, err)
	defer cl.Close()
	admin := kadm.NewClient(cl)
	_, _ = admin.DeleteTopics(context.Background(), topic)
	_, _ = admin.DeleteGroups(context.Background(), groups...)
}
