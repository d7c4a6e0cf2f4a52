package sqlresilience

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"sync"

	"github.com/millrace-go/millrace/resilience"
)

// Connector is a driver.Connector that opens connections through a policy. It is
// for sql.OpenDB, and safe for concurrent use.
type Connector struct {
	base   driver.Connector
	policy resilience.Policy
}

// NewConnector returns a connector, or what is wrong. The base is what a driver's
// own NewConnector returns, or OpenConnector of a driver.DriverContext:
//
//	connector, err := mysql.NewConnector(cfg)
//	connector := stdlib.GetConnector(cfg) // of pgx
//
// The policy applies to opening connections, not to what is done by them.
func NewConnector(base driver.Connector, policy resilience.Policy) (*Connector, error) {
	var errs []error
	if base == nil {
		errs = append(errs, errors.New("sqlresilience: connector: the base must not be nil"))
	}
	if policy == nil {
		errs = append(errs, errors.New("sqlresilience: connector: the policy must not be nil"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Connector{base, policy}, nil
}

// Connect opens a connection.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	d := &dial{base: c.base}
	conn, err := resilience.Get(ctx, c.policy, d.connect)
	switch {
	case err != nil:
		conn = nil
	case conn == nil:
		err = errNoConnection
	}
	d.closeBut(conn)
	return conn, err
}

var errNoConnection = errors.New("sqlresilience: connector: the policy returned without an error and without a connection")

// Driver returns the base's.
func (c *Connector) Driver() driver.Driver { return c.base.Driver() }

// Close closes the base, if it can be closed. sql.DB.Close calls it.
func (c *Connector) Close() error {
	if closer, ok := c.base.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// dial is one Connect with all its attempts.
type dial struct {
	base driver.Connector

	mu    sync.Mutex
	conns []driver.Conn
}

// connect is the function that the policy calls.
func (d *dial) connect(ctx context.Context) (driver.Conn, error) {
	conn, err := d.base.Connect(ctx)
	if err != nil {
		return nil, AsClass(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, conn)
	return conn, nil
}

// closeBut closes the connections of a Hedge's other attempts.
func (d *dial) closeBut(kept driver.Conn) {
	for _, conn := range d.conns {
		if conn != kept {
			_ = conn.Close()
		}
	}
}
