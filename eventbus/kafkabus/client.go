package kafkabus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 4 * time.Second // so that Open can try twice
	// A connection that does not answer for this long, beyond what the request
	// may take, is replaced.
	answerTimeout = 10 * time.Second
	// acksTimeout is how long the replicas of an event may take.
	acksTimeout = 5 * time.Second
	openTimeout = 10 * time.Second
	// maxBuffered bounds what all Publish calls together hold, in bytes.
	maxBuffered = 256 << 20
)

// connection is what every client of a Broker is made from.
type connection struct {
	options []kgo.Opt
	lastErr atomic.Pointer[error] // of connecting; nil after a success
}

func (c Config) connection() (*connection, error) {
	conn := &connection{}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	if c.TLS {
		encrypted, err := c.tlsConfig()
		if err != nil {
			return nil, err
		}
		dial = overTLS(dial, encrypted)
	}
	seeds := make([]string, 0, len(c.Brokers))
	for _, address := range c.Brokers {
		seeds = append(seeds, withPort(address))
	}
	conn.options = []kgo.Opt{
		kgo.SeedBrokers(seeds...),
		kgo.ClientID(c.ClientID),
		kgo.Dialer(dial),
		kgo.RequestTimeoutOverhead(answerTimeout),
		kgo.RetryBackoffFn(backoff),
		kgo.RequestRetries(1000), // time is the bound
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(time.Minute),
		kgo.BrokerMaxReadBytes(256 << 20),
		kgo.DisableClientMetrics(),
		kgo.WithLogger(newLogger(c.Logger)),
		kgo.WithHooks(conn),
	}
	if m := c.mechanism(); m != nil {
		conn.options = append(conn.options, kgo.SASL(m))
	}
	return conn, nil
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (conn *connection) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	switch {
	case err == nil:
		conn.lastErr.Store(nil)
	case !errors.Is(err, context.Canceled):
		conn.lastErr.Store(&err)
	}
}

// client returns a new client with further options.
func (conn *connection) client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(conn.options[:len(conn.options):len(conn.options)], more...)...)
}

// prove connects once. A connection that ends at once is an error here, where it
// hints at a wrong configuration, and mended later, when it is an outage.
func (conn *connection) prove(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("no answer within %v", openTimeout))
	defer cancel()
	cl, err := conn.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	if err = cl.Ping(ctx); err != nil && ctx.Err() != nil {
		return conn.late(context.Cause(ctx))
	}
	return err
}

// late adds what is known about the reason to an error that ends the waiting.
func (conn *connection) late(err error) error {
	if trouble := conn.lastErr.Load(); trouble != nil {
		return fmt.Errorf("%w; last trouble: %w", err, explain(*trouble))
	}
	return err
}

func backoff(fails int) time.Duration {
	d := time.Second
	if fails < 5 {
		d = 50 * time.Millisecond << fails
	}
	return d/2 + rand.N(d/2)
}

func overTLS(dial dialer, c *tls.Config) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		plain, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := c.Clone()
		if c.ServerName == "" {
			if c.ServerName, _, err = net.SplitHostPort(address); err != nil {
				return nil, errors.Join(err, plain.Close())
			}
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		encrypted := tls.Client(plain, c)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			_ = plain.Close() // the first error says more
			return nil, &handshakeError{err}
		}
		return encrypted, nil
	}
}

// handshakeError is a TLS handshake that failed.
type handshakeError struct{ error }

func (e *handshakeError) Unwrap() error { return e.error }

func (c Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("authorities: %s holds no certificate in PEM form", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func (c Config) mechanism() sasl.Mechanism {
	switch c.SASL {
	case "plain":
		return plain.Auth{User: c.User, Pass: c.Password}.AsMechanism()
	case "scram-sha-256":
		return scram.Auth{User: c.User, Pass: c.Password}.AsSha256Mechanism()
	case "scram-sha-512":
		return scram.Auth{User: c.User, Pass: c.Password}.AsSha512Mechanism()
	}
	return nil
}

func (c Config) partitioner() kgo.Partitioner {
	var hasher kgo.PartitionerHasher // nil is murmur2
	if c.Partitioner == "sarama" {
		hasher = kgo.SaramaCompatHasher(func(key []byte) uint32 {
			h := fnv.New32a()
			_, _ = h.Write(key)
			return h.Sum32()
		})
	}
	return kgo.UniformBytesPartitioner(16<<10, true, true, hasher)
}

func (c Config) codec() kgo.CompressionCodec {
	switch c.Compression {
	case "gzip":
		return kgo.GzipCompression()
	case "snappy":
		return kgo.SnappyCompression()
	case "lz4":
		return kgo.Lz4Compression()
	case "zstd":
		return kgo.ZstdCompression()
	}
	return kgo.NoCompression()
}
