// Package roundtrips counts for tests and benchmarks what a conversation with a
// server costs on a network.
package roundtrips

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// Counter counts how often the connections that it dials turn from sending to
// receiving: round trips, however many packets and statements they have.
type Counter struct{ n atomic.Int64 }

// Dial is for the configuration of a driver.
func (c *Counter) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &counted{Conn: conn, counter: c}, nil
}

// Load returns how many there have been.
func (c *Counter) Load() int64 { return c.n.Load() }

// Of returns how many f takes.
func (c *Counter) Of(f func()) int64 {
	before := c.Load()
	f()
	return c.Load() - before
}

type counted struct {
	net.Conn
	counter *Counter
	sent    atomic.Bool
}

func (c *counted) Write(b []byte) (int, error) {
	c.sent.Store(true)
	return c.Conn.Write(b)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.sent.Swap(false) {
		c.counter.n.Add(1)
	}
	return n, err
}
