package amqpbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// dialTimeout bounds the making of one connection, handshakes included, and
// openTimeout that of the first, whatever the number of hosts.
const dialTimeout, openTimeout = 8 * time.Second, 10 * time.Second

// session is one connection to the broker.
type session struct {
	conn *amqp.Connection
	wire *wire
	gone chan struct{} // closed when the connection is no more
	err  error         // why; set before gone is closed

	blocked atomic.Pointer[string] // why the broker takes no publishes, if so
}

// dial connects to the first host that answers, beginning with any.
func (c *Config) dial(ctx context.Context, purpose string) (*session, error) {
	var errs []error
	for n, i := range rand.Perm(len(c.Hosts)) {
		s, err := c.dialHost(ctx, c.Hosts[i], purpose, timeFor(ctx, len(c.Hosts)-n))
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// timeFor is what the next of some hosts may take, so that a silent one leaves
// time for the others.
func timeFor(ctx context.Context, hosts int) time.Duration {
	end, bounded := ctx.Deadline()
	if !bounded {
		return dialTimeout
	}
	return min(dialTimeout, time.Until(end)/time.Duration(hosts))
}

func (c *Config) dialHost(ctx context.Context, host, purpose string, timeout time.Duration) (*session, error) {
	address, err := hostPort(host, c.TLS != nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, c.explainDial(address, err, nil)
	}
	w := &wire{Conn: raw}
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })()
	conn, err := c.handshake(ctx, w, address, purpose)
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return nil, c.explainDial(address, err, w)
	}
	s := &session{conn: conn, wire: w, gone: make(chan struct{})}
	go s.watch(conn.NotifyClose(make(chan *amqp.Error, 1)), conn.NotifyBlocked(make(chan amqp.Blocking, 16)))
	return s, nil
}

func (c *Config) handshake(ctx context.Context, w *wire, address, purpose string) (*amqp.Connection, error) {
	var conn net.Conn = w
	if c.TLS != nil {
		config := c.TLS.Clone()
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(address)
		}
		client := tls.Client(w, config)
		if err := client.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = client
	}
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(c.Name + " " + purpose)
	auth := amqp.Authentication(&amqp.PlainAuth{Username: c.Username, Password: c.Password})
	if c.External {
		auth = &amqp.ExternalAuth{}
	}
	heard := &witness{Conn: conn}
	opened, err := amqp.Open(heard, amqp.Config{
		SASL: []amqp.Authentication{auth}, Vhost: c.VHost, Heartbeat: c.Heartbeat,
		Locale: "en_US", Properties: properties, FrameSize: 131072,
	})
	if why := heard.err.Load(); err != nil && why != nil {
		err = fmt.Errorf("%w: %w", err, *why)
	}
	return opened, err
}

// witness keeps why reading failed, which the client may have no words for: with
// TLS 1.3 a server refuses a certificate only after the handshake.
type witness struct {
	net.Conn
	err atomic.Pointer[error]
}

func (w *witness) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err != nil {
		w.err.CompareAndSwap(nil, &err)
	}
	return n, err
}

// wire is the connection below TLS. It keeps the first bytes that were read,
// which tell a server of another protocol.
type wire struct {
	net.Conn
	n     atomic.Int32
	first [8]byte
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if have := int(w.n.Load()); have < len(w.first) {
		w.n.Store(int32(have + copy(w.first[have:], b[:n])))
	}
	return n, err
}

// watch waits for the end of the connection.
func (s *session) watch(closed chan *amqp.Error, blocked chan amqp.Blocking) {
	for {
		select {
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			s.blocked.Store(nil)
			if b.Active {
				s.blocked.Store(&b.Reason)
			}
		case e := <-closed:
			s.err = errors.New("the connection was closed")
			if e != nil {
				s.err = fmt.Errorf("the connection was lost: %w", e)
			}
			close(s.gone)
			return
		}
	}
}

func (s *session) alive() bool {
	select {
	case <-s.gone:
		return false
	default:
		return true
	}
}

// answerTimeout bounds what need not take long: the closing of a channel, say. It
// may be stuck on a queue that is not available.
const answerTimeout = 10 * time.Second

// guard ends the connection unless it is called off in time.
func (s *session) guard() (callOff func() bool) { return s.guardFor(answerTimeout) }

func (s *session) guardFor(d time.Duration) (callOff func() bool) {
	return time.AfterFunc(d, func() { _ = s.wire.Close() }).Stop
}

// close ends the connection in an orderly way if the broker answers within a
// second.
func (s *session) close() {
	_ = s.conn.CloseDeadline(time.Now().Add(time.Second)) // it may be gone already
	_ = s.wire.Close()
	<-s.gone
}

// poke wakes the one that waits on c, now or when it looks next.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
