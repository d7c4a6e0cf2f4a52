package amqpbus_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/amqpbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/internal/testserver"
)

func TestConformance(t *testing.T) {
	for _, queueType := range []string{amqpbus.QuorumQueue, amqpbus.ClassicQueue} {
		t.Run(queueType, func(t *testing.T) {
			url := testserver.URL(t, testserver.AMQP) + "?queue_type=" + queueType
			open := func(url string) func() (driver.Broker, error) {
				return func() (driver.Broker, error) { return driver.Open(t.Context(), url, driver.Options{}) }
			}
			eventbustest.Run(t, func(t *testing.T) eventbustest.Backend {
				return eventbustest.Backend{
					Open:              open(url),
					URL:               url,
					OpenUnprovisioned: open(url + "&provision=false"),
					Remove:            func(topic string, groups []string) { remove(t, url, topic, groups) },
				}
			})
		})
	}
}

// remove retries, because the broker may not have noticed yet that the members
// have gone.
func remove(t *testing.T, url, topic string, groups []string) {
	opened, err := driver.Open(t.Context(), url, driver.Options{})
	require.NoError(t, err)
	defer opened.Close()
	b := opened.(*amqpbus.Broker)
	for _, group := range groups {
		if driver.CheckGroup(group) == nil && driver.CheckTopic(topic) == nil {
			require.EventuallyWithT(t, func(c *assert.CollectT) {
				assert.NoError(c, b.RemoveGroup(t.Context(), topic, group))
			}, 10*time.Second, 20*time.Millisecond)
		}
	}
	if driver.CheckTopic(topic) == nil {
		require.NoError(t, b.RemoveTopic(t.Context(), topic))
	}
}
