package kafkabus

import (
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func TestURL(t *testing.T) {
	c, err := parse(parseURL(t, "kafkas://app:p%40ss@one,two:19092/?tls_ca=a&tls_cert=b&tls_key=c&tls_server_name=d&sasl=scram-sha-512&client_id=e"+
		"&partitions=3&replication=-1&min_insync=2&retention=24h&provision=false&max_payload=4096&partitioner=sarama&compression=zstd"+
		"&linger=5ms&publish_timeout=10s&session_timeout=6s&revoke_timeout=7s&commit_interval=8ms&buffer=99"))
	require.NoError(t, err)
	require.Equal(t, Config{
		Brokers: []string{"one", "two:19092"}, User: "app", Password: "p@ss", TLS: true, CAFile: "a", CertFile: "b", KeyFile: "c", ServerName: "d",
		SASL: "scram-sha-512", ClientID: "e", Partitions: 3, MinInsync: 2, Retention: 24 * time.Hour, NoProvision: true, MaxPayload: 4096,
		Partitioner: "sarama", Compression: "zstd", Linger: 5 * time.Millisecond, PublishTimeout: 10 * time.Second, SessionTimeout: 6 * time.Second,
		RevokeTimeout: 7 * time.Second, CommitInterval: 8 * time.Millisecond, Buffer: 99,
	}, c)
	require.NoError(t, c.withDefaults().validate())

	c, err = parse(parseURL(t, "kafka://host?tls=true"))
	require.NoError(t, err)
	require.Equal(t, Config{Brokers: []string{"host"}, TLS: true}, c)
}

func TestURLThatIsRefused(t *testing.T) {
	for url, want := range map[string]string{
		"kafka:":                       "a kafka: URL names its brokers: kafka://host1:9092,host2:9092",
		"kafka:host:9092":              "a kafka: URL names its brokers: kafka://host1:9092,host2:9092",
		"kafkas:///":                   "a kafkas: URL names its brokers: kafkas://host1:9092,host2:9092",
		"kafka://a,,b":                 `address "" is not host or host:port`,
		"kafka://a:1:2":                `address "a:1:2" is not host or host:port`,
		"kafka://a/topic":              `a kafka: URL has no path, got "/topic"; topics are named in the program`,
		"kafka://a/#x":                 "a kafka: URL has no fragment; write a '#' in a password as %23",
		"kafkas://a?tls=false":         "a kafkas: URL is with TLS; write kafka: for tls=false",
		"kafka://a?tls_ca=x":           "the tls_ parameters need TLS; write kafkas: or tls=true",
		"kafka://user@a":               "credentials are written user:password@host",
		"kafka://a?sasl=plain":         "sasl=plain needs credentials, written user:password@host",
		"kafka://a?sasl=gssapi":        `parameter sasl="gssapi": want one of plain, scram-sha-256, scram-sha-512`,
		"kafka://a?client=x&bufer=99":  `unknown parameter "bufer" (did you mean "buffer"?)`,
		"kafka://a?partitions=0":       `parameter partitions="0": want a whole number from 1 to 10000`,
		"kafka://a?session_timeout=1h": `parameter session_timeout="1h": want a duration from 1s to 30m0s`,
	} {
		_, err := parse(parseURL(t, url))
		require.ErrorContains(t, err, want, url)
	}
	_, err := parse(parseURL(t, "kafka:?partitions=0&wat=1"))
	require.Len(t, strings.Split(err.Error(), "\n"), 3, "all problems at once")
}

func TestConfigThatIsRefused(t *testing.T) {
	err := Config{
		Brokers: []string{"a:b:c"}, Partitions: -1, Replication: 101, MinInsync: -1, MaxPayload: 1 << 30, Buffer: 3, Retention: time.Millisecond,
		Linger: time.Minute, PublishTimeout: time.Millisecond, SessionTimeout: time.Hour, RevokeTimeout: time.Hour, CommitInterval: time.Hour,
		Partitioner: "x", Compression: "y", SASL: "z", CertFile: "c",
	}.withDefaults().validate()
	want := []string{
		`kafkabus: Brokers: address "a:b:c" is not host or host:port`,
		`kafkabus: Partitions must be from 1 to 10000, got -1`,
		`kafkabus: Replication must be from 0 to 100, got 101`,
		`kafkabus: MinInsync must be from 0 to 100, got -1`,
		`kafkabus: MaxPayload must be from 1 to 67108864, got 1073741824`,
		`kafkabus: Linger must be from 0s to 1s, got 1m0s`,
		`kafkabus: PublishTimeout must be from 1s to 1h0m0s, got 1ms`,
		`kafkabus: SessionTimeout must be from 1s to 30m0s, got 1h0m0s`,
		`kafkabus: RevokeTimeout must be from 10ms to 15m0s, got 1h0m0s`,
		`kafkabus: CommitInterval must be from 1ms to 1m0s, got 1h0m0s`,
		`kafkabus: Partitioner must be one of murmur2, sarama, got "x"`,
		`kafkabus: Compression must be one of none, gzip, snappy, lz4, zstd, got "y"`,
		`kafkabus: SASL must be one of plain, scram-sha-256, scram-sha-512, got "z"`,
		`kafkabus: SASL z needs User and Password`,
		`kafkabus: CertFile and KeyFile go together, one is missing`,
		`kafkabus: Buffer must be at least 16, got 3`,
		`kafkabus: Retention must be at least 1s, got 1ms`,
	}
	require.Equal(t, want, strings.Split(err.Error(), "\n"))
	require.ErrorContains(t, Config{}.withDefaults().validate(), "kafkabus: Brokers: no address")
}

func TestAddressesGetAPort(t *testing.T) {
	for address, want := range map[string]string{"a": "a:9092", "a:1": "a:1", "[::1]": "[::1]:9092", "[::1]:1": "[::1]:1"} {
		require.NoError(t, checkAddress(address))
		require.Equal(t, want, withPort(address))
	}
}

// Golden: a changed partition of a key breaks its order. The hashes are those of
// Kafka's own UtilsTest, and what Sarama does is asked of Sarama.
func TestPartitionsOfKeys(t *testing.T) {
	const partitions = 12
	java := map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "abc": 479470107}
	hashed := sarama.NewHashPartitioner("t")
	k := cluster(t)
	for name, want := range map[string]func(key string) int32{
		"murmur2": func(key string) int32 { return java[key] & 0x7fffffff % partitions },
		"sarama": func(key string) int32 {
			p, err := hashed.Partition(&sarama.ProducerMessage{Key: sarama.StringEncoder(key)}, partitions)
			require.NoError(t, err)
			return p
		},
	} {
		b := dial(t, k, Config{Partitioner: name, Partitions: partitions})
		got := make(chan *driver.Delivery, len(java))
		start(t, b, driver.Subscription{Topic: name, Handle: into(got)})
		for key := range java {
			require.NoError(t, b.Publish(name, msg(key, key)))
		}
		for range java {
			d := receive(t, got)
			require.Equal(t, want(d.Key), d.Position.Partition, "%s of %s", name, d.Key)
		}
	}
}
