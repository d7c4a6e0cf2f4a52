package kafkabus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// explain puts what to do about it before err, where Kafka is terse.
func explain(err error) error {
	var explained *explainedError
	if errors.As(err, &explained) {
		return err
	}
	if meaning := meaningOf(err); meaning != "" {
		return &explainedError{meaning, err}
	}
	return err
}

// explainedError is one with its meaning before it.
type explainedError struct {
	meaning string
	err     error
}

func (e *explainedError) Error() string { return e.meaning + ": " + e.err.Error() }
func (e *explainedError) Unwrap() error { return e.err }

func meaningOf(err error) string {
	if meaning := meaningOfAnswer(err); meaning != "" {
		return meaning
	}
	var (
		eof       *kgo.ErrFirstReadEOF
		dns       *net.DNSError
		header    tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		handshake *handshakeError
		remote    *net.OpError
	)
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("host %q can't be resolved; check the brokers in the URL", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there; check host and port, and that the broker is up"
	case errors.As(err, &header):
		return "the broker does not speak TLS on this port; use kafka: instead of kafkas:, or the port for TLS"
	case errors.As(err, &authority):
		return "the broker's certificate is of an unknown authority; name it with tls_ca"
	case errors.As(err, &name):
		return "the broker's certificate is for another host; name that with tls_server_name"
	case errors.As(err, &remote) && remote.Op == "remote error": // a TLS alert
		return "the broker refused the TLS handshake; if it asks for a client certificate, name one with tls_cert and tls_key"
	case errors.As(err, &handshake) && is(err, io.EOF, context.DeadlineExceeded, syscall.ECONNRESET):
		return "the broker does not answer the TLS handshake; use kafka: instead of kafkas:, or the port for TLS"
	case errors.As(err, &eof):
		return "the broker closed the connection; if the port is for TLS use kafkas:, if it wants credentials write user:password@ before the host"
	}
	return ""
}

// meaningOfAnswer is meaningOf for what the broker said.
func meaningOfAnswer(err error) string {
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "the broker does not accept the credentials; check user and password in the URL, and sasl="
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "the broker does not offer this SASL mechanism; try another sasl="
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return "the user lacks a right on the topic; grant it DESCRIBE, and WRITE to publish, READ to subscribe, CREATE to have it created"
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return "the user lacks a right on the group; grant it READ"
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return "the user lacks a right on the cluster; grant it IDEMPOTENT_WRITE, and CREATE to have topics created"
	case errors.Is(err, kerr.InvalidSessionTimeout):
		return "session_timeout is outside of the broker's group.min.session.timeout.ms and group.max.session.timeout.ms"
	case errors.Is(err, kerr.InconsistentGroupProtocol):
		return "the group has members with another way of sharing partitions, such as Watermill's own Kafka subscriber; stop them or use another group"
	case errors.Is(err, kerr.InvalidReplicationFactor):
		return "the cluster has fewer brokers than replicas are asked for; lower replication"
	}
	return ""
}

// cause returns why ctx ended if it has, else err.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// translate turns the client's word for closed into the driver's.
func (b *Broker) translate(ctx context.Context, err error) error {
	if err != nil && b.open.Err() != nil {
		return driver.ErrClosed
	}
	if is(err, errPublishTimeout, errPersistTimeout) { // says more than ctx, which it is derived from
		return err
	}
	return explain(cause(ctx, err))
}
