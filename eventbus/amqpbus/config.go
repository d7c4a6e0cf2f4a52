package amqpbus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"
)

// Types of the queues of a group.
const (
	// QuorumQueue is a replicated queue.
	QuorumQueue = "quorum"
	// ClassicQueue is a durable queue on one node.
	ClassicQueue = "classic"
)

// Config of a Broker. The zero value is usable and means a RabbitMQ on this
// machine with its default account.
type Config struct {
	// Hosts are the nodes of the cluster, as host or host:port; one is as good
	// as another. The port defaults to 5672, with TLS to 5671. Defaults to
	// localhost.
	Hosts []string

	// Username and Password default to guest and guest, which RabbitMQ lets in
	// from its own machine only.
	Username, Password string

	// VHost is the virtual host. Defaults to "/".
	VHost string

	// TLS makes connections use it. The server name defaults to the host.
	// Defaults to nil, no TLS.
	TLS *tls.Config

	// External authenticates by the client's certificate instead of a password;
	// it needs RabbitMQ's plugin rabbitmq_auth_mechanism_ssl. Defaults to false.
	External bool

	// Name is how connections are called in RabbitMQ's logs and management, up to
	// 200 bytes. Defaults to "millrace".
	Name string

	// Queues is over how many queues a group's events are spread, and so the most
	// members that have work at a time: 1, 2, 4, 8, 16 or 32. All members of a
	// group must use the same. Defaults to 4.
	Queues int

	// QueueType is QuorumQueue or ClassicQueue. All members of a group must use
	// the same. Defaults to QuorumQueue.
	QueueType string

	// Prefetch is how many events of one queue a member holds that are not
	// acknowledged; 1 to 10000. Defaults to 256.
	Prefetch int

	// MaxPayload is the largest payload accepted, in bytes, up to 128 MiB.
	// Defaults to 1 MiB.
	MaxPayload int

	// Retention is how long events of a topic without any group are kept for the
	// first to come; 1s to 10000h. Defaults to 168h.
	Retention time.Duration

	// PublishTimeout bounds a Publish whose context has no earlier end, while the
	// broker is away or does not confirm; 100ms to 1h. Defaults to 30s.
	PublishTimeout time.Duration

	// RevokeTimeout is how long a queue that is to move to another member, or that
	// comes back after a lost connection, waits for handlers that still run; 1ms
	// to 1h. Order per key holds for handlers that return within it. Defaults to
	// 30s.
	RevokeTimeout time.Duration

	// Heartbeat is the interval by which connections that are dead but not closed
	// are noticed, after three of it; whole seconds from 1s to 60s. Defaults to 5s.
	Heartbeat time.Duration

	// NoProvision makes the broker create nothing: topics and groups must have
	// been created by Broker.Provision. Defaults to false.
	NoProvision bool

	// Logger for what the broker mends by itself. Defaults to slog.Default().
	Logger *slog.Logger
}

const (
	maxPrefetch                          = 10000
	maxMaxPayload                        = 128 << 20 // RabbitMQ's max_message_size
	minRetention, maxRetention           = time.Second, 10000 * time.Hour
	minPublishTimeout, maxPublishTimeout = 100 * time.Millisecond, time.Hour
	minRevokeTimeout, maxRevokeTimeout   = time.Millisecond, time.Hour
	minHeartbeat, maxHeartbeat           = time.Second, time.Minute
	maxName                              = 200
)

func (c Config) withDefaults() Config {
	if len(c.Hosts) == 0 {
		c.Hosts = []string{"localhost"}
	}
	if c.Username == "" && c.Password == "" {
		c.Username, c.Password = "guest", "guest"
	}
	setDefault(&c.VHost, "/")
	setDefault(&c.Name, "millrace")
	setDefault(&c.Queues, 4)
	setDefault(&c.QueueType, QuorumQueue)
	setDefault(&c.Prefetch, 256)
	setDefault(&c.MaxPayload, 1<<20)
	setDefault(&c.Retention, 168*time.Hour)
	setDefault(&c.PublishTimeout, 30*time.Second)
	setDefault(&c.RevokeTimeout, 30*time.Second)
	setDefault(&c.Heartbeat, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// validate reports every field that is out of range. Defaults are set already.
func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("amqpbus: "+format, args...))
		}
	}
	within := func(name string, d, min, max time.Duration) {
		check(d >= min && d <= max, "%s must be from %v to %v, got %v", name, min, max, d)
	}
	for _, h := range c.Hosts {
		_, err := hostPort(h, c.TLS != nil)
		check(err == nil, "host %q: %v", h, err)
	}
	check(slices.Contains([]int{1, 2, 4, 8, 16, 32}, c.Queues), "Queues must be 1, 2, 4, 8, 16 or 32, got %d", c.Queues)
	check(c.QueueType == QuorumQueue || c.QueueType == ClassicQueue, "QueueType must be %s or %s, got %q", QuorumQueue, ClassicQueue, c.QueueType)
	check(c.Prefetch >= 1 && c.Prefetch <= maxPrefetch, "Prefetch must be from 1 to %d, got %d", maxPrefetch, c.Prefetch)
	check(c.MaxPayload >= 1 && c.MaxPayload <= maxMaxPayload, "MaxPayload must be from 1 to %d, got %d", maxMaxPayload, c.MaxPayload)
	check(len(c.Name) <= maxName, "Name must have up to %d bytes, got %d", maxName, len(c.Name))
	check(!c.External || hasCertificate(c.TLS), "External needs TLS with a client certificate")
	within("Retention", c.Retention, minRetention, maxRetention)
	within("PublishTimeout", c.PublishTimeout, minPublishTimeout, maxPublishTimeout)
	within("RevokeTimeout", c.RevokeTimeout, minRevokeTimeout, maxRevokeTimeout)
	within("Heartbeat", c.Heartbeat, minHeartbeat, maxHeartbeat)
	check(c.Heartbeat%time.Second == 0, "Heartbeat must be whole seconds, got %v", c.Heartbeat)
	return errors.Join(errs...)
}

func hasCertificate(c *tls.Config) bool {
	return c != nil && (len(c.Certificates) > 0 || c.GetClientCertificate != nil)
}

// tlsFiles are the tls_ parameters of a URL.
type tlsFiles struct {
	ca, cert, key, serverName string
}

func (f tlsFiles) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca: %s holds no certificate in PEM form", f.ca)
		}
	}
	if (f.cert == "") != (f.key == "") {
		return nil, errors.New("tls_cert and tls_key must be given together")
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("tls_cert and tls_key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
