package sqlbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func init() {
	driver.Register("sqlite", open)
	driver.Register("postgres", openURL(OpenPostgres))
	driver.Register("postgresql", openURL(OpenPostgres))
	driver.Register("mysql", openURL(OpenMySQL))
}

// Config of a Broker. The zero value is usable.
type Config struct {
	// Retention is how long an event is kept for groups to come, counted from
	// its publication; at least 1s. An event that some existing group has not
	// consumed is kept whatever its age. Defaults to 168h.
	Retention time.Duration

	// Lease is how long a member that crashed keeps its share of the work;
	// 1s to 1h. It must exceed the longest time for which the database can't be
	// written to, or members lose their share while they are alive. Every process
	// on the database should use the same. Defaults to 5s.
	Lease time.Duration

	// Poll is how often the database is checked for changes by other processes;
	// 1ms to 10s. Events of the same Broker don't wait for it; with PostgreSQL
	// those of others don't either while LISTEN works, and it is 250ms at least.
	// Defaults to 20ms for a file and 50ms for a server.
	Poll time.Duration

	// MaxPayload is the largest payload accepted, in bytes, up to 512 MiB.
	// Defaults to 1 MiB.
	MaxPayload int

	// Connections is how many connections to a server are open at most; 2 to
	// 1000. One more is for listening. Half of them publish, each to one topic at
	// a time; a locked topic keeps one for up to a second at a time, so there
	// should be more than topics that are locked for long. Defaults to 10; a file
	// has five.
	Connections int

	// NoListen makes a Broker on PostgreSQL do without LISTEN and NOTIFY, which a
	// pooler that hands connections out by transaction does not support. Events of
	// other processes then arrive by polling. Defaults to false.
	NoListen bool

	// TLS, if not nil, replaces what the URL of a server says about TLS: the
	// connection is encrypted as it asks.
	TLS *tls.Config

	// NoProvision makes Open refuse a database that is missing or lacks the
	// tables instead of creating them; see Schema. Defaults to false.
	NoProvision bool

	// Logger for what the broker mends by itself. Defaults to slog.Default().
	Logger *slog.Logger
}

const (
	minRetention, maxRetention = time.Second, 100 * 365 * 24 * time.Hour
	minLease, maxLease         = time.Second, time.Hour
	minPoll, maxPoll           = time.Millisecond, 10 * time.Second
	maxMaxPayload              = 512 << 20 // databases take just under 1 GB a row
	minConnections             = 2
	maxConnections             = 1000
)

func (c Config) withDefaults() Config {
	if c.Retention == 0 {
		c.Retention = 168 * time.Hour
	}
	if c.Lease == 0 {
		c.Lease = 5 * time.Second
	}
	if c.Poll == 0 {
		c.Poll = 20 * time.Millisecond
	}
	if c.Connections == 0 {
		c.Connections = 10
	}
	if c.MaxPayload == 0 {
		c.MaxPayload = 1 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// validate reports every field that is out of range. Defaults are set already.
func (c Config) validate() error {
	var errs []error
	within := func(name string, d, min, max time.Duration) {
		if d < min || d > max {
			errs = append(errs, fmt.Errorf("sqlbus: %s must be from %v to %v, got %v", name, min, max, d))
		}
	}
	within("Retention", c.Retention, minRetention, maxRetention)
	within("Lease", c.Lease, minLease, maxLease)
	within("Poll", c.Poll, minPoll, maxPoll)
	if c.MaxPayload < 1 || c.MaxPayload > maxMaxPayload {
		errs = append(errs, fmt.Errorf("sqlbus: MaxPayload must be from 1 to %d, got %d", maxMaxPayload, c.MaxPayload))
	}
	if c.Connections < minConnections || c.Connections > maxConnections {
		errs = append(errs, fmt.Errorf("sqlbus: Connections must be from %d to %d, got %d", minConnections, maxConnections, c.Connections))
	}
	return errors.Join(errs...)
}

// params declares the parameters that all URLs have.
func (c *Config) params(p *driver.Params, provision *bool) {
	p.Duration("retention", &c.Retention, minRetention, maxRetention)
	p.Duration("lease", &c.Lease, minLease, maxLease)
	p.Duration("poll", &c.Poll, minPoll, maxPoll)
	p.Int("max_payload", &c.MaxPayload, 1, maxMaxPayload)
	p.Bool("provision", provision)
}

// open implements driver.Opener.
func open(ctx context.Context, u *url.URL, o driver.Options) (driver.Broker, error) {
	c := Config{Logger: o.Logger}
	provision := true
	p := driver.NewParams(u)
	c.params(p, &provision)
	path, err := pathOf(u)
	if err := errors.Join(p.Err(), err); err != nil {
		return nil, fmt.Errorf("sqlbus: %w", err)
	}
	c.NoProvision = !provision
	b, err := Open(ctx, path, c)
	if err != nil {
		return nil, err // not b: a nil *Broker is no nil driver.Broker
	}
	return b, nil
}

// pathOf returns the path that a sqlite: URL names.
func pathOf(u *url.URL) (string, error) {
	if u.Host != "" || u.User != nil {
		return "", fmt.Errorf("a sqlite: URL has no host; write sqlite:%s%s for a relative path or sqlite:///%s%s for an absolute one", u.Host, u.Path, u.Host, u.Path)
	}
	if u.Fragment != "" {
		return "", errors.New("a sqlite: URL has no fragment; write a '#' in a file name as %23")
	}
	if u.Opaque == "" {
		return u.Path, nil
	}
	path, err := url.PathUnescape(u.Opaque)
	if err != nil {
		return "", fmt.Errorf("path %q can't be unescaped: %w", u.Opaque, err)
	}
	return path, nil
}

// checkPath refuses what SQLite would take for something else than a file, and
// returns the absolute path.
func checkPath(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("sqlbus: no path; write sqlite:path/to/bus.db")
	case path == ":memory:" || strings.HasPrefix(path, "file:"):
		return "", fmt.Errorf("sqlbus: %q is not a path of a file; for a bus in memory use memory: (package membus)", path)
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("sqlbus: path %q contains a zero byte", path)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("sqlbus: path %q: %w", path, err)
	}
	return abs, nil
}
