package sqlbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

const (
	serverPoll     = 50 * time.Millisecond
	connectTimeout = 5 * time.Second
	networkTimeout = 15 * time.Second
	// idleConnection is when a connection is closed that nobody uses, before a
	// firewall forgets it.
	idleConnection = 30 * time.Second
)

// openURL makes a driver.Opener of one of the Open functions for servers.
func openURL(open func(context.Context, string, Config) (*Broker, error)) driver.Opener {
	return func(ctx context.Context, u *url.URL, o driver.Options) (driver.Broker, error) {
		b, err := open(ctx, u.String(), Config{Logger: o.Logger})
		if err != nil {
			return nil, err // not b: a nil *Broker is no nil driver.Broker
		}
		return b, nil
	}
}

// keepAlive notices within ten seconds that the other side has gone.
var keepAlive = &net.Dialer{
	Timeout:         connectTimeout,
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 4 * time.Second, Interval: 2 * time.Second, Count: 3},
}

// address is what a URL says beside its parameters.
type address struct {
	url      *url.URL
	params   *driver.Params
	provided *bool // the parameter provision
}

// parseServer reads what URLs of servers have in common into c, which may be
// set already: a parameter overrides it. Other parameters are left to the caller.
func parseServer(rawURL, port string, c *Config) (address, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Opaque != "" {
		return address{}, errors.New("sqlbus: the URL can't be parsed; write scheme://user:password@host:port/database, and '#', '/', '@' and the like percent-encoded in the password")
	}
	if u.Hostname() == "" {
		return address{}, fmt.Errorf("sqlbus: the URL has no host; write %s://user:password@host:%s/database", u.Scheme, port)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	provision := !c.NoProvision
	p := driver.NewParams(u)
	c.params(p, &provision)
	p.Int("connections", &c.Connections, minConnections, maxConnections)
	return address{u, p, &provision}, nil
}

// finish reports what is wrong with the parameters, and with c.
func (a address) finish(c *Config) error {
	if err := a.params.Err(); err != nil {
		return fmt.Errorf("sqlbus: %w", err)
	}
	c.NoProvision = !*a.provided
	if c.Poll == 0 {
		c.Poll = serverPoll
	}
	*c = c.withDefaults()
	return c.validate()
}

// String names the database without secrets.
func (a address) String() string { return a.url.Scheme + "://" + a.url.Host + a.url.Path }
