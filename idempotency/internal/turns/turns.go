// Package turns counts round trips to a server. It is for tests and benchmarks.
package turns

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
)

// A Counter counts the round trips of the connections that it dials: a request,
// however many packets and statements it has, and the wait for its answer.
type Counter struct{ n atomic.Int64 }

// Dial connects like a net.Dialer does.
func (c *Counter) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &counted{Conn: conn, count: &c.n}, nil
}

// Of returns how many round trips f takes.
func (c *Counter) Of(f func()) int64 {
	before := c.n.Load()
	f()
	return c.n.Load() - before
}

type counted struct {
	net.Conn
	count *atomic.Int64

	mu       sync.Mutex
	answered bool // since the last write
	asked    bool
}

func (c *counted) Write(b []byte) (int, error) {
	c.mu.Lock()
	if !c.asked || c.answered {
		c.count.Add(1)
	}
	c.asked, c.answered = true, false
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.mu.Lock()
		c.answered = true
		c.mu.Unlock()
	}
	return n, err
}
