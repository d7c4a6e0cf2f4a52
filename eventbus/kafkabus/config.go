package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config of a Broker. Brokers is required; all else has a default.
type Config struct {
	// Brokers are the addresses to start from, host or host:port; the port
	// defaults to 9092. The rest of the cluster is found through them.
	Brokers []string

	// TLS encrypts the connections. It is implied by the files below. Defaults to
	// false.
	TLS bool
	// CAFile is a PEM file with the authorities to trust. Defaults to those of the
	// system.
	CAFile string
	// CertFile and KeyFile are PEM files with the certificate and the key of the
	// client, for brokers that ask for one. Set both or none.
	CertFile, KeyFile string
	// ServerName is expected in the brokers' certificates. Defaults to the host
	// that is connected to.
	ServerName string

	// SASL is the mechanism by which User and Password are proven: plain,
	// scram-sha-256 or scram-sha-512. Defaults to plain if there is a User, else
	// to none.
	SASL string
	// User and Password are the credentials for SASL.
	User, Password string

	// ClientID names this program in the logs and quotas of the brokers. Defaults
	// to millrace.
	ClientID string

	// NoProvision makes Publish and Subscribe fail for topics that do not exist
	// instead of creating them. Defaults to false.
	NoProvision bool
	// Partitions of the topics that are created; 1 to 10000. Defaults to 12.
	Partitions int
	// Replication of the topics that are created; 1 to 100. Defaults to what the
	// brokers have as default.
	Replication int
	// MinInsync is how many replicas must have an event of a created topic before
	// Publish returns; 1 to 100. Defaults to what the brokers have as default.
	MinInsync int
	// Retention of the topics that are created; at least 1s. Defaults to what the
	// brokers have as default.
	Retention time.Duration

	// MaxPayload is the largest payload accepted, in bytes, up to 64 MiB.
	// Defaults to 1 MiB.
	MaxPayload int
	// Partitioner chooses the partition of a key: murmur2 does it as the clients
	// in Java and librdkafka do, sarama as those on Sarama, such as Watermill's.
	// All publishers of a topic must agree. Defaults to murmur2.
	Partitioner string
	// Compression of what is published: none, gzip, snappy, lz4 or zstd. Defaults
	// to snappy.
	Compression string
	// Linger is how long an event waits for company before it is sent; 0 to 1s.
	// Events of one Publish never wait for each other. Defaults to 0.
	Linger time.Duration
	// PublishTimeout bounds Publish where the context of the message does not;
	// 1s to 1h. Defaults to 30s.
	PublishTimeout time.Duration

	// SessionTimeout is how long a member that crashed keeps its partitions; 1s to
	// 30m. The brokers have bounds of their own, 6s to 30m if not configured
	// otherwise. Defaults to 15s.
	SessionTimeout time.Duration
	// RevokeTimeout is how long a partition that is to move waits for the handlers
	// that still run; 10ms to 15m. Defaults to 30s.
	RevokeTimeout time.Duration
	// CommitInterval is how often progress is stored, and so how much a crash
	// repeats; 1ms to 1m. Defaults to 100ms.
	CommitInterval time.Duration
	// Buffer is how many events a consumer works on at a time, and how many more it
	// fetches ahead; 16 to 1000000. Defaults to 4096, or four per worker.
	Buffer int

	// Logger for what the broker mends by itself. Defaults to slog.Default().
	Logger *slog.Logger

	// Dial makes the TCP connections, below TLS; for tunnels and proxies, since
	// brokers say themselves where they are. It must honour ctx. Defaults to a
	// net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	maxMaxPayload = 64 << 20
	// headroom is what a record may be larger than its payload.
	headroom = 64 << 10
	// kafkaMaxMessage is max.message.bytes of topics that nobody configured.
	kafkaMaxMessage = 1048588
)

const maxRetention = 100 * 365 * 24 * time.Hour

func (c Config) withDefaults() Config {
	orInt := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	orDuration := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	orString := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	orInt(&c.Partitions, 12)
	orInt(&c.MaxPayload, 1<<20)
	orDuration(&c.PublishTimeout, 30*time.Second)
	orDuration(&c.SessionTimeout, 15*time.Second)
	orDuration(&c.RevokeTimeout, 30*time.Second)
	orDuration(&c.CommitInterval, 100*time.Millisecond)
	orString(&c.ClientID, "millrace")
	orString(&c.Partitioner, "murmur2")
	orString(&c.Compression, "snappy")
	if c.User != "" {
		orString(&c.SASL, "plain")
	}
	c.TLS = c.TLS || c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" || c.ServerName != ""
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// The ranges, for Config and URL alike.
type (
	intRange      struct{ min, max int }
	durationRange struct{ min, max time.Duration }
)

var (
	intRanges = map[string]intRange{
		"Partitions": {1, 10000}, "Replication": {0, 100}, "MinInsync": {0, 100},
		"MaxPayload": {1, maxMaxPayload}, "Buffer": {0, 1000000},
	}
	durationRanges = map[string]durationRange{
		"Retention": {0, maxRetention}, "Linger": {0, time.Second}, "PublishTimeout": {time.Second, time.Hour},
		"SessionTimeout": {time.Second, 30 * time.Minute}, "RevokeTimeout": {10 * time.Millisecond, 15 * time.Minute},
		"CommitInterval": {time.Millisecond, time.Minute},
	}
	mechanisms   = []string{"plain", "scram-sha-256", "scram-sha-512"}
	partitioners = []string{"murmur2", "sarama"}
	compressions = []string{"none", "gzip", "snappy", "lz4", "zstd"}
)

// validate reports every field that is out of range. Defaults are set already.
func (c Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("kafkabus: "+format, args...)) }
	integer := func(name string, n int) {
		if r := intRanges[name]; n < r.min || n > r.max {
			bad("%s must be from %d to %d, got %d", name, r.min, r.max, n)
		}
	}
	duration := func(name string, d time.Duration) {
		if r := durationRanges[name]; d < r.min || d > r.max {
			bad("%s must be from %v to %v, got %v", name, r.min, r.max, d)
		}
	}
	oneOf := func(name, value string, allowed []string) {
		if !slices.Contains(allowed, value) {
			bad("%s must be one of %s, got %q", name, strings.Join(allowed, ", "), value)
		}
	}
	for _, address := range c.Brokers {
		if err := checkAddress(address); err != nil {
			bad("Brokers: %w", err)
		}
	}
	if len(c.Brokers) == 0 {
		bad("Brokers: no address; write kafka://host:9092 or kafka://host1:9092,host2:9092")
	}
	integer("Partitions", c.Partitions)
	integer("Replication", c.Replication)
	integer("MinInsync", c.MinInsync)
	integer("MaxPayload", c.MaxPayload)
	integer("Buffer", c.Buffer)
	duration("Retention", c.Retention)
	duration("Linger", c.Linger)
	duration("PublishTimeout", c.PublishTimeout)
	duration("SessionTimeout", c.SessionTimeout)
	duration("RevokeTimeout", c.RevokeTimeout)
	duration("CommitInterval", c.CommitInterval)
	oneOf("Partitioner", c.Partitioner, partitioners)
	oneOf("Compression", c.Compression, compressions)
	if c.SASL != "" {
		oneOf("SASL", c.SASL, mechanisms)
		if c.User == "" || c.Password == "" {
			bad("SASL %s needs User and Password", c.SASL)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		bad("CertFile and KeyFile go together, one is missing")
	}
	if c.Buffer != 0 && c.Buffer < minBuffer {
		bad("Buffer must be at least %d, got %d", minBuffer, c.Buffer)
	}
	if c.Retention != 0 && c.Retention < time.Second {
		bad("Retention must be at least 1s, got %v", c.Retention)
	}
	return errors.Join(errs...)
}

const minBuffer = 16

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(withPort(address))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host == "" || strings.ContainsAny(address, "/@ ") {
		return fmt.Errorf("address %q is not host or host:port", address)
	}
	return nil
}

func withPort(address string) string {
	if i := strings.LastIndexByte(address, ':'); i > strings.LastIndexByte(address, ']') {
		return address
	}
	return address + ":9092"
}

// batchBytes is the largest request part for one partition of a topic that
// takes limit bytes at most.
func (c Config) batchBytes(limit int) int32 {
	return int32(min(limit, max(1<<20, c.MaxPayload)+headroom, math.MaxInt32))
}
