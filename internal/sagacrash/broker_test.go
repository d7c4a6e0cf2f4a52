package sagacrash

import (
	"context"
	"crypto/rand"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/amqpbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	_ "github.com/millrace-go/millrace/eventbus/kafkabus" // "kafka:"
	"github.com/millrace-go/millrace/internal/testserver"
)

// broker is a server with names of this run's own.
type broker struct {
	url    string
	remove func(t *testing.T) // the names
}

func kafka(t *testing.T) broker {
	server := testserver.URL(t, testserver.Kafka)
	full, prefix := named(t, server, "partitions=4&session_timeout=6s")
	return broker{full, func(t *testing.T) {
		u, err := url.Parse(server)
		require.NoError(t, err)
		cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(u.Host, ",")...))
		require.NoError(t, err)
		defer cl.Close()
		admin, ctx := kadm.NewClient(cl), context.Background()
		topics, err := admin.ListTopics(ctx)
		require.NoError(t, err)
		for name := range topics {
			if strings.HasPrefix(name, prefix) {
				_, err := admin.DeleteTopic(ctx, name)
				assert.NoError(t, err)
			}
		}
		groups, err := admin.ListGroups(ctx)
		require.NoError(t, err)
		for name := range groups {
			if strings.HasPrefix(name, prefix) {
				_, _ = admin.DeleteGroup(ctx, name) // one whose members were killed lately stays for a while
			}
		}
	}}
}

func rabbitMQ(t *testing.T) broker {
	server := testserver.URL(t, testserver.AMQP)
	full, prefix := named(t, server, "queues=4")
	return broker{full, func(t *testing.T) {
		opened, err := driver.Open(context.Background(), server, driver.Options{})
		require.NoError(t, err)
		defer opened.Close()
		b := opened.(*amqpbus.Broker)
		for topic, group := range readers {
			assert.EventuallyWithT(t, func(c *assert.CollectT) { // members may not be known to have gone
				assert.NoError(c, b.RemoveGroup(context.Background(), prefix+topic, prefix+group))
			}, patience, 100*time.Millisecond)
			assert.NoError(t, b.RemoveTopic(context.Background(), prefix+topic))
		}
	}}
}

func named(t *testing.T, server, params string) (full, prefix string) {
	u, err := url.Parse(server)
	require.NoError(t, err)
	prefix = "sagacrash-" + strings.ToLower(rand.Text()[:8]) + "."
	u.RawQuery = strings.Trim(u.RawQuery+"&"+params+"&prefix="+prefix, "&")
	return u.String(), prefix
}
