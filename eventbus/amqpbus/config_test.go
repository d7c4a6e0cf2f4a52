package amqpbus

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestURLs(t *testing.T) {
	for raw, want := range map[string]Config{
		"amqp:":                               {},
		"amqp://":                             {},
		"amqp://rabbit":                       {Hosts: []string{"rabbit"}},
		"amqp://rabbit:1234/":                 {Hosts: []string{"rabbit:1234"}},
		"amqp://a,b,c":                        {Hosts: []string{"a", "b", "c"}},
		"amqp://a,b:1234":                     {Hosts: []string{"a:1234", "b:1234"}},
		"amqp://[::1]:1234":                   {Hosts: []string{"[::1]:1234"}},
		"amqp://u:p%23w@rabbit/vhost":         {Hosts: []string{"rabbit"}, Username: "u", Password: "p#w", VHost: "vhost"},
		"amqp://rabbit/%2F":                   {Hosts: []string{"rabbit"}, VHost: "/"},
		"amqp://rabbit/a%2Fb":                 {Hosts: []string{"rabbit"}, VHost: "a/b"},
		"amqp:?queues=8&queue_type=classic":   {Queues: 8, QueueType: ClassicQueue},
		"amqp:?prefetch=9&max_payload=10":     {Prefetch: 9, MaxPayload: 10},
		"amqp:?retention=1h&heartbeat=7s":     {Retention: time.Hour, Heartbeat: 7 * time.Second},
		"amqp:?publish_timeout=2s":            {PublishTimeout: 2 * time.Second},
		"amqp:?revoke_timeout=2s":             {RevokeTimeout: 2 * time.Second},
		"amqp:?connection_name=shop":          {Name: "shop"},
		"amqp:?provision=false":               {NoProvision: true},
		"amqp:?provision=true&queues=1":       {Queues: 1},
		"amqp:?queue_type=quorum&prefetch=10": {QueueType: QuorumQueue, Prefetch: 10},
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err, raw)
		got, err := configOf(u)
		require.NoError(t, err, raw)
		require.Equal(t, want, got, raw)
		require.NoError(t, got.withDefaults().validate(), raw)
	}
}

func TestURLProblemsAreAllReported(t *testing.T) {
	for raw, want := range map[string][]string{
		"amqp://h?prefetch=0&queues=3&spice=hot": {`parameter prefetch="0": want a whole number from 1 to 10000`, `parameter queues="3": want one of 1, 2, 4, 8, 16, 32`, `unknown parameter "spice"`},
		"amqp://h?queue_type=stream":             {"want one of quorum, classic"},
		"amqp://h?heartbeat=100ms":               {"want a duration from 1s to 1m0s"},
		"amqp://h?tls_ca=x":                      {`unknown parameter "tls_ca"`},
		"amqp:rabbit":                            {"write amqp://user:password@host:port/vhost"},
		"amqp://a,,b":                            {"a host is empty"},
		"amqps://h?tls_ca=/no/such/file":         {"tls_ca: open /no/such/file"},
		"amqps://h?tls_cert=x":                   {"tls_cert and tls_key must be given together"},
		"amqps://h?tls_cert=x&tls_key=y":         {"tls_cert and tls_key: open x"},
		"amqps://h?tls_ca=config_test.go":        {"holds no certificate in PEM form"},
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err, raw)
		_, err = configOf(u)
		for _, part := range want {
			require.ErrorContains(t, err, part, raw)
		}
	}
}

func TestConfigProblemsAreAllReported(t *testing.T) {
	c := Config{
		Hosts: []string{"", "h:x", ":5672"}, Queues: 3, QueueType: "stream", Prefetch: -1, MaxPayload: -1, Name: strings.Repeat("x", 201),
		External: true, Retention: 1, PublishTimeout: 1, RevokeTimeout: -1, Heartbeat: 1500 * time.Millisecond,
	}
	_, err := Open(t.Context(), c)
	require.EqualError(t, err, strings.Join([]string{
		`amqpbus: host "": want host or host:port`,
		`amqpbus: host "h:x": want host or host:port`,
		`amqpbus: host ":5672": want host or host:port`,
		`amqpbus: Queues must be 1, 2, 4, 8, 16 or 32, got 3`,
		`amqpbus: QueueType must be quorum or classic, got "stream"`,
		`amqpbus: Prefetch must be from 1 to 10000, got -1`,
		`amqpbus: MaxPayload must be from 1 to 134217728, got -1`,
		`amqpbus: Name must have up to 200 bytes, got 201`,
		`amqpbus: External needs TLS with a client certificate`,
		`amqpbus: Retention must be from 1s to 10000h0m0s, got 1ns`,
		`amqpbus: PublishTimeout must be from 100ms to 1h0m0s, got 1ns`,
		`amqpbus: RevokeTimeout must be from 1ms to 1h0m0s, got -1ns`,
		`amqpbus: Heartbeat must be whole seconds, got 1.5s`,
	}, "\n"))
}

func TestDefaults(t *testing.T) {
	c := Config{}.withDefaults()
	require.NoError(t, c.validate())
	require.Equal(t, []string{"localhost"}, c.Hosts)
	require.Equal(t, []any{4, QuorumQueue, 256, 1 << 20, "/", "guest"}, []any{c.Queues, c.QueueType, c.Prefetch, c.MaxPayload, c.VHost, c.Username})
	require.Equal(t, []time.Duration{168 * time.Hour, 30 * time.Second, 30 * time.Second, 5 * time.Second},
		[]time.Duration{c.Retention, c.PublishTimeout, c.RevokeTimeout, c.Heartbeat})
}

// The spread of keys and the names are a contract with other processes.
func TestWireContract(t *testing.T) {
	for key, slot := range map[string]int{"": 5, "a": 12, "order-1": 13, "\u00fc\x00": 30} {
		require.Equal(t, slot, slotOf(key), key)
	}
	require.Equal(t, "07", slotNames[7])
	n := namesOf("orders.placed", "billing", 4, QuorumQueue)
	require.Equal(t, groupNames{
		topic: "orders.placed", group: "billing",
		base: "orders.placed:billing", alternate: "orders.placed:billing:4-quorum",
		members: "orders.placed:billing:members", oldest: "orders.placed:billing:oldest",
		queues: []string{"orders.placed:billing:0", "orders.placed:billing:1", "orders.placed:billing:2", "orders.placed:billing:3"},
	}, n)
	require.Equal(t, "orders.placed:unclaimed", unclaimed("orders.placed"))
}

func TestNamesFitAndDiffer(t *testing.T) {
	long := strings.Repeat("x", 248)
	seen := map[string]string{}
	for _, topic := range []string{long + "1", long + "2"} {
		for _, group := range []string{"g", long + "1", long + "2"} {
			n := namesOf(topic, group, slots, ClassicQueue)
			for _, name := range append(n.queues, n.base, n.alternate, n.members, n.oldest, unclaimed(topic)+group, lockName(topic)+group) {
				require.Empty(t, seen[name])
				seen[name] = topic + group
			}
			for _, name := range append(n.queues, n.base, n.alternate, n.members, n.oldest, unclaimed(topic), lockName(topic)) {
				require.LessOrEqual(t, len(name), 255)
			}
		}
	}
}

func TestSharesAreEvenAndMoveLittle(t *testing.T) {
	members := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}
	for _, queues := range []int{1, 4, 8, 32} {
		before := assign(queues, members[:1])
		for n := 1; n <= len(members); n++ {
			load := map[string]int{}
			owners := assign(queues, members[:n])
			moved := 0
			for q, owner := range owners {
				load[owner]++
				if owner != before[q] {
					moved++
				}
			}
			for _, id := range members[:n] {
				require.InDelta(t, float64(queues)/float64(n), load[id], 0.999)
			}
			require.LessOrEqual(t, moved, max(2, queues*2/3), "%d queues, %d members", queues, n)
			before = owners
		}
	}
}
