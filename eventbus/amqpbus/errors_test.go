package amqpbus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func openError(t *testing.T, rawURL string) string {
	t.Helper()
	began := time.Now()
	_, err := driver.Open(t.Context(), rawURL, driver.Options{Logger: quiet()})
	require.Error(t, err)
	require.Less(t, time.Since(began), 10*time.Second)
	require.NotContains(t, err.Error(), "geheim")
	return err.Error()
}

func TestOpenErrorsSayWhatToDo(t *testing.T) {
	u, err := url.Parse(serverURL(t))
	require.NoError(t, err)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := free.Addr().String()
	require.NoError(t, free.Close())
	for rawURL, want := range map[string]string{
		"amqp://guest:geheim@" + u.Host:             `amqpbus: open ` + u.Host + `: user "guest" or its password is refused; RabbitMQ lets guest in from its own machine only: Exception (403) Reason: `,
		"amqp://nobody:geheim@" + u.Host:            `: user "nobody" or its password is refused: Exception (403) Reason: `,
		"amqp://guest:guest@" + u.Host + "/missing": `: there is no virtual host "missing"; create it with rabbitmqctl add_vhost, or name another in the path of the URL: Exception (530) Reason: `,
		"amqp://guest:geheim@no-such-host.invalid":  `amqpbus: open no-such-host.invalid:5672: the name "no-such-host.invalid" can't be resolved: `,
		"amqp://guest:geheim@" + nobody:             `amqpbus: open ` + nobody + `: nothing listens there; is RabbitMQ running, and is this its AMQP port?: `,
		"amqps://guest:geheim@" + u.Host:            `: the port does not speak TLS; use amqp: instead of amqps:, or RabbitMQ's TLS port, usually 5671: `,
	} {
		require.Contains(t, openError(t, rawURL), want)
	}
}

func TestOpenGivesUpOnAServerOfAnotherProtocol(t *testing.T) {
	for greeting, want := range map[string]string{
		"HTTP/1.1 400 Bad Request\r\n\r\n": "does not speak AMQP 0-9-1",
		"":                                 "the connection was closed without a word; if the port speaks TLS, use amqps: instead of amqp:",
		"AMQP\x00\x01\x00\x00":             "Exception (501)",
		"\x15\x03\x01\x00\x02\x02\x0a":     "the port speaks TLS; use amqps: instead of amqp:, or RabbitMQ's plain port, usually 5672",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.ReadFull(c, make([]byte, 8))
				_, _ = io.WriteString(c, greeting)
				_ = c.Close()
			}
		}()
		require.Contains(t, openError(t, "amqp://guest:geheim@"+l.Addr().String()), want)
		require.NoError(t, l.Close())
	}
}

func TestOpenHonoursItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // which accepts and says nothing
	require.NoError(t, err)
	defer l.Close()
	ctx, cancel := contextFor(t, 200*time.Millisecond)
	defer cancel()
	_, err = driver.Open(ctx, "amqp://"+l.Addr().String(), driver.Options{})
	require.ErrorContains(t, err, "no answer in time")
}

func TestOpenTriesEveryHost(t *testing.T) {
	c := testConfig(t)
	c.Hosts = append(c.Hosts, "no-such-host.invalid", "127.0.0.1:1")
	for range 5 {
		b, err := Open(t.Context(), c)
		require.NoError(t, err)
		require.NoError(t, b.Close())
	}
	c.Hosts = c.Hosts[1:]
	_, err := Open(t.Context(), c)
	require.ErrorContains(t, err, "no-such-host.invalid")
	require.ErrorContains(t, err, "127.0.0.1:1: nothing listens there")
}

func TestGroupsMadeOtherwiseAreRefused(t *testing.T) {
	topic := topicFor(t)
	s := driver.Subscription{Topic: topic, Group: "g", Concurrency: 1, Handle: into(nil)}
	_, err := openWith(t, "?queues=2").Subscribe(t.Context(), s)
	require.NoError(t, err)
	for _, params := range []string{"", "?queues=2&queue_type=classic"} {
		_, err = openWith(t, params).Subscribe(t.Context(), s)
		require.True(t, driver.IsPermanent(err))
		require.ErrorContains(t, err, "the group was created with other queues: it has queues=2 and queue_type=quorum, this is configured for queues=")
		require.ErrorContains(t, err, "use the same queues and queue_type, or remove the group first")
	}
}

func TestTopicsThatAreSomethingElseAreRefused(t *testing.T) {
	topic := topicFor(t)
	require.NoError(t, raw(t).ExchangeDeclare(topic, "topic", true, false, false, false, nil))
	b := openWith(t, "")
	err := b.Publish(topic, msg("k", 1))
	require.True(t, driver.IsPermanent(err))
	require.ErrorContains(t, err, fmt.Sprintf("exchange %q exists, but not as it must be: Exception (406)", topic))
}

func TestNotProvisionedSaysWhatIsMissing(t *testing.T) {
	b := openWith(t, "?provision=false")
	err := b.Publish("absent", msg("k", 1))
	require.EqualError(t, err, `amqpbus: topic "absent": event id-1 was not published: topic "absent": it does not exist and provisioning is off; create it with Broker.Provision(ctx, "absent") from a client that may, or drop provision=false`)
	_, err = b.Subscribe(t.Context(), driver.Subscription{Topic: "absent", Group: "g", Concurrency: 1, Handle: into(nil)})
	require.ErrorContains(t, err, `subscribe group "g" to topic "absent": topic "absent": it does not exist and provisioning is off; create it with Broker.Provision(ctx, "absent", "g")`)
	topic := topicFor(t)
	require.NoError(t, openWith(t, "").Publish(topic, msg("k", 1)))
	_, err = b.Subscribe(t.Context(), driver.Subscription{Topic: topic, Group: "g", Concurrency: 1, Handle: into(nil)})
	require.ErrorIs(t, err, driver.ErrNotProvisioned)
	require.ErrorContains(t, err, fmt.Sprintf(`the exchange of the group, "%s:g": it does not exist`, topic))
}

// tlsServer speaks TLS in front of the real server.
func tlsServer(t *testing.T, mutual bool) (address string, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	caKey, caDER := certificate(t, nil, nil, true)
	ca, err := x509.ParseCertificate(caDER)
	require.NoError(t, err)
	files = map[string]string{"ca": write(t, dir, "ca.pem", "CERTIFICATE", caDER)}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, who := range []string{"server", "client"} {
		key, der := certificate(t, ca, caKey, false)
		keyDER, err := x509.MarshalECPrivateKey(key)
		require.NoError(t, err)
		files[who+"cert"], files[who+"key"] = write(t, dir, who+".pem", "CERTIFICATE", der), write(t, dir, who+".key", "EC PRIVATE KEY", keyDER)
	}
	pair, err := tls.LoadX509KeyPair(files["servercert"], files["serverkey"])
	require.NoError(t, err)
	config.Certificates = []tls.Certificate{pair}
	if mutual {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AddCert(ca)
	}
	u, err := url.Parse(serverURL(t))
	require.NoError(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() { relay(l, u.Host, &serving) })
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String(), files
}

func relay(l net.Listener, to string, serving *sync.WaitGroup) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			defer in.Close()
			if err := in.(*tls.Conn).Handshake(); err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			serving.Go(func() { defer in.Close(); _, _ = io.Copy(in, out) })
			_, _ = io.Copy(out, in)
			out.Close()
		})
	}
}

func certificate(t *testing.T, parent *x509.Certificate, signer *ecdsa.PrivateKey, isCA bool) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"rabbit.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: isCA, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	return key, der
}

func write(t *testing.T, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

func TestTLS(t *testing.T) {
	address, files := tlsServer(t, false)
	base := "amqps://guest:guest@" + address
	b := openAt(t, base+"?tls_server_name=rabbit.test&tls_ca="+files["ca"])
	topic := topicFor(t)
	got := deliveries()
	start(t, b, driver.Subscription{Topic: topic, Handle: into(got)})
	require.NoError(t, b.Publish(topic, msg("k", strings.Repeat("x", 100_000))))
	require.Len(t, text(receive(t, got)), 100_000)
	require.Contains(t, openError(t, base), "the server's certificate is ")
	require.Contains(t, openError(t, base+"?tls_server_name=rabbit.test"), "signed by an authority that is not trusted; name its file by tls_ca")
	require.Contains(t, openError(t, base+"?tls_server_name=other.test&tls_ca="+files["ca"]), "the server's certificate is for another name; give the right one by tls_server_name")
	require.Contains(t, openError(t, "amqp://guest:geheim@"+address), "if the port speaks TLS, use amqps: instead of amqp:")
}

func TestMutualTLS(t *testing.T) {
	address, files := tlsServer(t, true)
	base := "amqps://guest:guest@" + address + "?tls_server_name=rabbit.test&tls_ca=" + files["ca"]
	openAt(t, base+"&tls_cert="+files["clientcert"]+"&tls_key="+files["clientkey"])
	require.Contains(t, openError(t, base), "the server wants a client certificate; give one by tls_cert and tls_key")
	require.Contains(t, openError(t, base+"&sasl=external&tls_cert="+files["clientcert"]+"&tls_key="+files["clientkey"]), "SASL could not negotiate")
}
