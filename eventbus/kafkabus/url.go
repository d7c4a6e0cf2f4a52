package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func init() {
	driver.Register("kafka", open)
	driver.Register("kafkas", open)
}

// open implements driver.Opener.
func open(ctx context.Context, u *url.URL, o driver.Options) (driver.Broker, error) {
	c, err := parse(u)
	if err != nil {
		return nil, fmt.Errorf("kafkabus: %w", err)
	}
	c.Logger = o.Logger
	b, err := Open(ctx, c)
	if err != nil {
		return nil, err // not b: a nil *Broker is no nil driver.Broker
	}
	return b, nil
}

func parse(u *url.URL) (Config, error) {
	c := Config{}
	secure, provision := u.Scheme == "kafkas", true
	p := driver.NewParams(u)
	p.Bool("tls", &secure)
	p.String("tls_ca", &c.CAFile)
	p.String("tls_cert", &c.CertFile)
	p.String("tls_key", &c.KeyFile)
	p.String("tls_server_name", &c.ServerName)
	p.Enum("sasl", &c.SASL, mechanisms...)
	p.String("client_id", &c.ClientID)
	p.Bool("provision", &provision)
	integer := func(name string, into *int, field string, min int) {
		p.Int(name, into, min, intRanges[field].max)
	}
	integer("partitions", &c.Partitions, "Partitions", 1)
	p.Int("replication", &c.Replication, -1, intRanges["Replication"].max)
	integer("min_insync", &c.MinInsync, "MinInsync", 1)
	integer("max_payload", &c.MaxPayload, "MaxPayload", 1)
	integer("buffer", &c.Buffer, "Buffer", minBuffer)
	duration := func(name string, into *time.Duration, field string) {
		p.Duration(name, into, durationRanges[field].min, durationRanges[field].max)
	}
	p.Duration("retention", &c.Retention, time.Second, maxRetention)
	duration("linger", &c.Linger, "Linger")
	duration("publish_timeout", &c.PublishTimeout, "PublishTimeout")
	duration("session_timeout", &c.SessionTimeout, "SessionTimeout")
	duration("revoke_timeout", &c.RevokeTimeout, "RevokeTimeout")
	duration("commit_interval", &c.CommitInterval, "CommitInterval")
	p.Enum("partitioner", &c.Partitioner, partitioners...)
	p.Enum("compression", &c.Compression, compressions...)
	err := p.Err()
	c.NoProvision = !provision
	c.TLS = secure
	c.Replication = max(c.Replication, 0) // -1 is how Kafka's own tools write the default
	return c, errors.Join(err, authority(u, &c))
}

// authority reads what stands before the query.
func authority(u *url.URL, c *Config) error {
	var errs []error
	if u.Opaque != "" || u.Host == "" {
		errs = append(errs, fmt.Errorf("a %s: URL names its brokers: %s://host1:9092,host2:9092", u.Scheme, u.Scheme))
	} else {
		c.Brokers = strings.Split(u.Host, ",")
		for _, address := range c.Brokers {
			if err := checkAddress(address); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if u.Path != "" && u.Path != "/" {
		errs = append(errs, fmt.Errorf("a %s: URL has no path, got %q; topics are named in the program", u.Scheme, u.Path))
	}
	if u.Fragment != "" {
		errs = append(errs, fmt.Errorf("a %s: URL has no fragment; write a '#' in a password as %%23", u.Scheme))
	}
	if u.Scheme == "kafkas" && !c.TLS {
		errs = append(errs, errors.New("a kafkas: URL is with TLS; write kafka: for tls=false"))
	}
	if !c.TLS && (c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" || c.ServerName != "") {
		errs = append(errs, errors.New("the tls_ parameters need TLS; write kafkas: or tls=true"))
	}
	password, hasPassword := u.User.Password()
	c.User, c.Password = u.User.Username(), password
	if u.User != nil && (c.User == "" || !hasPassword || password == "") {
		errs = append(errs, errors.New("credentials are written user:password@host"))
	}
	if c.SASL != "" && u.User == nil {
		errs = append(errs, fmt.Errorf("sasl=%s needs credentials, written user:password@host", c.SASL))
	}
	return errors.Join(errs...)
}
