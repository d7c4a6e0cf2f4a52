package amqpbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func init() {
	driver.Register("amqp", open)
	driver.Register("amqps", open)
}

// open implements driver.Opener.
func open(ctx context.Context, u *url.URL, o driver.Options) (driver.Broker, error) {
	c, err := configOf(u)
	if err != nil {
		return nil, fmt.Errorf("amqpbus: %w", err)
	}
	c.Logger = o.Logger
	b, err := Open(ctx, c)
	if err != nil {
		return nil, err // not b: a nil *Broker is no nil driver.Broker
	}
	return b, nil
}

func configOf(u *url.URL) (Config, error) {
	var c Config
	var files tlsFiles
	var queues, sasl string
	provision := true
	p := driver.NewParams(u)
	p.Enum("queues", &queues, "1", "2", "4", "8", "16", "32")
	p.Enum("queue_type", &c.QueueType, QuorumQueue, ClassicQueue)
	p.Int("prefetch", &c.Prefetch, 1, maxPrefetch)
	p.Int("max_payload", &c.MaxPayload, 1, maxMaxPayload)
	p.Duration("retention", &c.Retention, minRetention, maxRetention)
	p.Duration("publish_timeout", &c.PublishTimeout, minPublishTimeout, maxPublishTimeout)
	p.Duration("revoke_timeout", &c.RevokeTimeout, minRevokeTimeout, maxRevokeTimeout)
	p.Duration("heartbeat", &c.Heartbeat, minHeartbeat, maxHeartbeat)
	p.String("connection_name", &c.Name)
	p.Bool("provision", &provision)
	if u.Scheme == "amqps" {
		p.String("tls_ca", &files.ca)
		p.String("tls_cert", &files.cert)
		p.String("tls_key", &files.key)
		p.String("tls_server_name", &files.serverName)
		p.Enum("sasl", &sasl, "plain", "external")
	}
	err := errors.Join(p.Err(), c.readURL(u))
	if u.Scheme == "amqps" {
		var tlsErr error
		c.TLS, tlsErr = files.config()
		err = errors.Join(err, tlsErr)
	}
	c.Queues, _ = strconv.Atoi(queues) // checked, or empty
	c.External, c.NoProvision = sasl == "external", !provision
	if _, given := u.User.Password(); u.User != nil && !given && !c.External {
		err = errors.Join(err, fmt.Errorf("the URL has a user but no password; write %s://user:password@host", u.Scheme))
	}
	return c, err
}

// readURL takes what is not a parameter.
func (c *Config) readURL(u *url.URL) error {
	if u.Opaque != "" || u.Fragment != "" {
		return fmt.Errorf("write %s://user:password@host:port/vhost; a '#' in a password is written %%23", u.Scheme)
	}
	if u.User != nil {
		c.Username = u.User.Username()
		c.Password, _ = u.User.Password()
	}
	c.VHost = strings.TrimPrefix(u.Path, "/")
	if u.Host == "" {
		return nil
	}
	c.Hosts = strings.Split(u.Host, ",")
	port := u.Port()
	for i, h := range c.Hosts {
		if h == "" {
			return errors.New("a host is empty; write host1,host2:port")
		}
		if _, _, err := net.SplitHostPort(h); err != nil && port != "" {
			c.Hosts[i] = net.JoinHostPort(strings.Trim(h, "[]"), port)
		}
	}
	return nil
}

// hostPort completes a host with the port of the protocol.
func hostPort(host string, withTLS bool) (string, error) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || name == "" {
			return "", errors.New("want host or host:port")
		}
		return host, nil
	}
	if host == "" {
		return "", errors.New("want host or host:port")
	}
	port := "5672"
	if withTLS {
		port = "5671"
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port), nil
}
