package sqlresilience_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/sqlresilience"
)

func through(t *testing.T, base driver.Connector, p resilience.Policy) *sqlresilience.Connector {
	t.Helper()
	c, err := sqlresilience.NewConnector(base, p)
	require.NoError(t, err)
	return c
}

func TestConnectorWaitsForAServerThatComesBack(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		proxy := proxied(t, db)
		addr := proxy.Listen
		var attempts atomic.Int32
		policy := resilience.Must(resilience.NewRetry(resilience.RetryConfig{
			Attempts: 1000, Backoff: resilience.Backoff{Shape: resilience.Fixed, Base: 5 * time.Millisecond}, Budget: resilience.Unlimited(),
			Observer: func(e resilience.Event) {
				attempts.Store(int32(e.Attempt))
				if e.Attempt == 5 {
					proxy.Listen = addr
					requireNil(t, proxy.Start())
				}
			},
		}))
		proxy.Stop()
		pool := open(t, through(t, connector(t, db, addr), policy))
		require.NoError(t, pool.PingContext(t.Context()))
		require.GreaterOrEqual(t, attempts.Load(), int32(5))
		require.Equal(t, db.DB.Driver(), pool.Driver())
	})
}

func TestConnectorTurnsAwayWhileTheServerIsAway(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		proxy := proxied(t, db)
		addr := proxy.Listen
		proxy.Stop()
		b := breaker(2)
		pool := open(t, through(t, connector(t, db, addr), b))
		for range 2 {
			err := pool.PingContext(t.Context())
			require.Equal(t, resilience.Transient, resilience.Classify(err), "%v", err)
		}
		require.ErrorIs(t, pool.PingContext(t.Context()), resilience.ErrOpen)
		err := sqlresilience.Transact(t.Context(), pool, pipeline(), nil, func(context.Context, *sql.Tx) error { return nil })
		require.True(t, resilience.IsRejected(err))
	})
}

// TestConnectorTimeoutOfASilentServer is about a server that accepts and says
// nothing.
func TestConnectorTimeoutOfASilentServer(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		proxy := proxied(t, db)
		swallow(t, proxy)
		limit := resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: 100 * time.Millisecond}))
		pool := open(t, through(t, connector(t, db, proxy.Listen), limit))
		require.ErrorIs(t, pool.PingContext(t.Context()), resilience.ErrTimeout)
	})
}

func TestConnectorOutlivesThePolicy(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		limit := resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: 10 * time.Second}))
		pool := open(t, through(t, connector(t, db, ""), limit))
		conn, err := pool.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		var n int
		require.NoError(t, conn.QueryRowContext(t.Context(), "SELECT 7").Scan(&n))
		require.Equal(t, 7, n)
	})
}

// counting is a connector whose connections are counted.
type counting struct {
	together sync.WaitGroup
	opened   atomic.Int32
	closed   atomic.Int32
	driver.Connector
}

type countedConn struct {
	driver.Conn
	of *counting
}

func (c *counting) Connect(context.Context) (driver.Conn, error) {
	c.together.Done()
	c.together.Wait()
	c.opened.Add(1)
	return &countedConn{of: c}, nil
}

func (c *countedConn) Close() error {
	c.of.closed.Add(1)
	return nil
}

func TestConnectorClosesTheConnectionsThatLost(t *testing.T) {
	base := &counting{}
	base.together.Add(2)
	hedge := resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: time.Microsecond}))
	conn, err := through(t, base, hedge).Connect(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, base.opened.Load())
	require.EqualValues(t, 1, base.closed.Load())
	require.NoError(t, conn.Close())
	require.EqualValues(t, 2, base.closed.Load())
}

func TestConnectorWithoutAConnection(t *testing.T) {
	instead := resilience.Must(resilience.NewFallback(resilience.FallbackConfig{Do: func(context.Context, error) error { return nil }}))
	b := breaker(1)
	b.Isolate()
	_, err := through(t, &counting{}, pipeline(instead, b)).Connect(t.Context())
	require.ErrorContains(t, err, "without a connection")

	base := &counting{}
	base.together.Add(1)
	spoiled := errors.New("spoiled")
	after := resilience.PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		return errors.Join(fn(ctx), spoiled)
	})
	conn, err := through(t, base, after).Connect(t.Context())
	require.ErrorIs(t, err, spoiled)
	require.Nil(t, conn)
	require.EqualValues(t, 1, base.closed.Load())
}

func TestNewConnectorReportsWhatIsMissing(t *testing.T) {
	_, err := sqlresilience.NewConnector(nil, nil)
	require.ErrorContains(t, err, "base")
	require.ErrorContains(t, err, "policy")
}

type closer struct {
	driver.Connector
	closed bool
}

func (c *closer) Close() error {
	c.closed = true
	return nil
}

func TestConnectorClosesItsBase(t *testing.T) {
	base := &closer{}
	require.NoError(t, sql.OpenDB(through(t, base, breaker(1))).Close())
	require.True(t, base.closed)
	require.NoError(t, sql.OpenDB(through(t, &counting{}, breaker(1))).Close())
}
