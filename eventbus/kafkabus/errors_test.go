package kafkabus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// openError opens a URL that must be refused, soon, and returns the text with the
// address replaced.
func openError(t *testing.T, url, address string) string {
	t.Helper()
	began := time.Now()
	_, err := driver.Open(context.Background(), url, driver.Options{Logger: quiet()})
	require.Error(t, err)
	require.Less(t, time.Since(began), openTimeout+2*time.Second)
	require.NotContains(t, err.Error(), "s3cret")
	return strings.ReplaceAll(err.Error(), address, "ADDRESS")
}

func addressOf(k *kfake.Cluster) string { return k.ListenAddrs()[0] }

func TestWrongPassword(t *testing.T) {
	k := cluster(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "app", "right"), kfake.Superuser("SCRAM-SHA-256", "app", "right"))
	const want = `kafkabus: open ADDRESS: the broker does not accept the credentials; check user and password in the URL, and sasl=: `
	require.Contains(t, openError(t, "kafka://app:s3cret@"+addressOf(k), addressOf(k)), want)
	require.Contains(t, openError(t, "kafka://app:s3cret@"+addressOf(k)+"?sasl=scram-sha-256", addressOf(k)), want)
	for _, query := range []string{"", "?sasl=plain", "?sasl=scram-sha-256"} {
		b, err := driver.Open(context.Background(), "kafka://app:right@"+addressOf(k)+query, driver.Options{Logger: quiet()})
		require.NoError(t, err)
		require.NoError(t, b.Close())
	}
}

// What a real Kafka says, where the embedded one just closes the connection.
func TestWrongPasswordInKafkasWords(t *testing.T) {
	k := cluster(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "app", "right"))
	k.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		answer := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
		answer.ErrorMessage = kmsg.StringPtr("Authentication failed: Invalid username or password")
		return answer, nil, true
	})
	require.Contains(t, openError(t, "kafka://app:s3cret@"+addressOf(k), addressOf(k)),
		`kafkabus: open ADDRESS: the broker does not accept the credentials; check user and password in the URL, and sasl=: `)
}

func TestNoPassword(t *testing.T) {
	k := cluster(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "app", "right"))
	require.Contains(t, openError(t, "kafka://"+addressOf(k), addressOf(k)),
		`kafkabus: open ADDRESS: the broker closed the connection; if the port is for TLS use kafkas:, if it wants credentials write user:password@ before the host: `)
}

func TestUnknownHost(t *testing.T) {
	require.Contains(t, openError(t, "kafka://no-such-host.invalid", "none"),
		`kafkabus: open no-such-host.invalid: host "no-such-host.invalid" can't be resolved; check the brokers in the URL: `)
}

func TestRefusedPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	require.Contains(t, openError(t, "kafka://"+address, address),
		`kafkabus: open ADDRESS: nothing listens there; check host and port, and that the broker is up: `)
}

func TestSilentPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, context.DeadlineExceeded)
	defer cancel()
	_, err = driver.Open(ctx, "kafka://"+l.Addr().String(), driver.Options{Logger: quiet()})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	served := certificate(t, dir)
	secure := cluster(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{served}}))
	ca := "?tls_ca=" + filepath.Join(dir, "cert.pem")
	b, err := driver.Open(context.Background(), "kafkas://"+addressOf(secure)+ca, driver.Options{Logger: quiet()})
	require.NoError(t, err)
	require.NoError(t, b.Publish("t", msg("k", "x")))
	require.NoError(t, b.Close())

	require.Contains(t, openError(t, "kafkas://"+addressOf(secure), addressOf(secure)),
		`kafkabus: open ADDRESS: the broker's certificate is of an unknown authority; name it with tls_ca: `)
	require.Contains(t, openError(t, "kafkas://"+addressOf(secure)+ca+"&tls_server_name=other.example", addressOf(secure)),
		`kafkabus: open ADDRESS: the broker's certificate is for another host; name that with tls_server_name: `)
	require.Contains(t, openError(t, "kafka://"+addressOf(secure), addressOf(secure)),
		`kafkabus: open ADDRESS: the broker closed the connection; if the port is for TLS use kafkas:`)

	plain := cluster(t)
	// A real Kafka closes the connection at once.
	require.Contains(t, openError(t, "kafkas://"+addressOf(plain)+ca, addressOf(plain)),
		`kafkabus: open ADDRESS: the broker does not answer the TLS handshake; use kafka: instead of kafkas:, or the port for TLS: `)
	require.Contains(t, openError(t, "kafkas://127.0.0.1:1?tls_ca=/no/such.pem", "none"), "kafkabus: open 127.0.0.1:1: authorities: open /no/such.pem: ")
}

func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	pair := certificate(t, dir)
	trusted := x509.NewCertPool()
	trusted.AddCert(pair.Leaf)
	k := cluster(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted}))
	url := "kafkas://" + addressOf(k) + "?tls_ca=" + filepath.Join(dir, "cert.pem")
	require.Contains(t, openError(t, url, addressOf(k)),
		`kafkabus: open ADDRESS: the broker refused the TLS handshake; if it asks for a client certificate, name one with tls_cert and tls_key: `)
	b, err := driver.Open(context.Background(), url+"&tls_cert="+filepath.Join(dir, "cert.pem")+"&tls_key="+filepath.Join(dir, "key.pem"), driver.Options{Logger: quiet()})
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

// certificate makes one for 127.0.0.1 that signs itself, in dir as well.
func certificate(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kafka"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	require.NoError(t, err)
	return pair
}

func TestMissingTopic(t *testing.T) {
	b := dial(t, cluster(t), Config{NoProvision: true})
	began := time.Now()
	err := b.Publish("orders", msg("k", "x"))
	require.EqualError(t, err, `kafkabus: publish to topic "orders": event id-x was not published: topic "orders": it does not exist and provisioning is off; create it, for example with kafka-topics.sh --create --topic orders, or drop provision=false`)
	require.ErrorIs(t, err, driver.ErrNotProvisioned)
	require.True(t, driver.IsPermanent(err))
	_, err = b.Subscribe(t.Context(), driver.Subscription{Topic: "orders", Group: "g", Concurrency: 1, Handle: func(*driver.Delivery) driver.Result { return driver.Result{} }})
	require.EqualError(t, err, `kafkabus: subscribe group "g" to topic "orders": topic "orders": it does not exist and provisioning is off; create it, for example with kafka-topics.sh --create --topic orders, or drop provision=false`)
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestMissingRights(t *testing.T) {
	k := cluster(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "root", "root"),
		kfake.User("PLAIN", "app", "s3cret", kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "readable", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true}),
		kfake.SeedTopics(2, "readable", "secret"))
	b := dial(t, k, Config{User: "app", Password: "s3cret"})
	err := b.Publish("secret", msg("k", "x"))
	require.ErrorContains(t, err, `kafkabus: publish to topic "secret": event id-x was not published: the user lacks a right on the topic; grant it DESCRIBE, and WRITE to publish, READ to subscribe, CREATE to have it created: `)
	err = b.Publish("readable", msg("k", "x"))
	require.ErrorContains(t, err, `the user lacks a right on the `)
	_, err = b.Subscribe(t.Context(), driver.Subscription{Topic: "readable", Group: "g", Concurrency: 1, Handle: func(*driver.Delivery) driver.Result { return driver.Result{} }})
	require.ErrorContains(t, err, `kafkabus: subscribe group "g" to topic "readable": the user lacks a right on the group; grant it READ: `)
}

// A topic that somebody else made with a lower limit is not only refused, but
// in the driver's words.
func TestTopicWithLowerLimit(t *testing.T) {
	k := cluster(t, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "2000"}), kfake.SeedTopics(1, "small"))
	b := dial(t, k, Config{Compression: "none"})
	err := b.Publish("small", msg("k", strings.Repeat("x", 10000)))
	require.ErrorIs(t, err, driver.ErrTooLarge)
	require.True(t, driver.IsPermanent(err))
	require.ErrorContains(t, err, "payload of 10000 bytes and metadata are over the topic's max.message.bytes")
}

func TestPublishTimeoutSaysWhatIsWrong(t *testing.T) {
	k := cluster(t)
	b := dial(t, k, Config{PublishTimeout: time.Second})
	require.NoError(t, b.Publish("t", msg("k", 1)))
	k.Close()
	err := b.Publish("t", msg("k", 2))
	require.ErrorIs(t, err, errPublishTimeout)
	require.ErrorContains(t, err, `event id-2: it may or may not have been published: no broker has taken it in time (publish_timeout); last trouble: nothing listens there; check host and port, and that the broker is up: `)
}
