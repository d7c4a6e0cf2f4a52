package pgxtx

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/testdb"
)

func begin(t *testing.T, conn *pgx.Conn) *Tx {
	t.Helper()
	base, err := conn.Begin(t.Context())
	require.NoError(t, err)
	return New(base)
}

func connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), testdb.New(t, dialect.Postgres).DSN)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	_, err = conn.Exec(t.Context(), "CREATE TABLE held (topic text, at bigint, key bytea, keys bytea[], due bigint[])")
	require.NoError(t, err)
	return conn
}

const insert = "INSERT INTO held VALUES ($1, $2, $3, $4, $5)"

func TestParametersArriveAsTheyWere(t *testing.T) {
	conn := connect(t)
	type row struct {
		Topic string
		At    int64
		Key   []byte
		Keys  [][]byte
		Due   []int64
	}
	want := []row{
		{"orders", -1, []byte{0, 1, 255}, [][]byte{{}, {0}, []byte("two")}, []int64{1 << 62, 0, -1}},
		{"", 0, []byte{}, [][]byte{}, []int64{}},
	}
	tx := begin(t, conn)
	for _, r := range want {
		require.NoError(t, tx.Hold(t.Context(), insert, r.Topic, r.At, r.Key, r.Keys, r.Due))
	}
	require.NotNil(t, tx.held)
	require.NoError(t, tx.Commit(t.Context()))
	rows, err := conn.Query(t.Context(), "SELECT * FROM held")
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestWhatIsNotHeldBack(t *testing.T) {
	conn := connect(t)
	tx := begin(t, conn)
	require.Error(t, tx.Hold(t.Context(), "INSERT INTO nowhere VALUES ($1)", "x"), "it can't be prepared")
	require.NoError(t, tx.Rollback(t.Context()))

	tx = begin(t, conn)
	require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (at) VALUES ($1)", 7), "a type that is not known here")
	require.Nil(t, tx.held)
	require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (key) VALUES ($1)", make([]byte, maxHeld)))
	require.NotNil(t, tx.held)
	require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (key) VALUES ($1)", []byte("too much")))
	require.Nil(t, tx.held)
	require.Same(t, conn, tx.Conn())
	require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (key) VALUES ($1)", []byte("the connection is given away")))
	require.Nil(t, tx.held)
	require.NoError(t, tx.Commit(t.Context()))
	var n int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM held").Scan(&n))
	require.Equal(t, 4, n)
}

func TestAfterItsEnd(t *testing.T) {
	conn := connect(t)
	for _, end := range []func(*Tx) error{
		func(tx *Tx) error { return tx.Commit(t.Context()) },
		func(tx *Tx) error { return tx.Rollback(t.Context()) },
	} {
		tx := begin(t, conn)
		require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (topic) VALUES ($1)", "x"))
		require.NoError(t, end(tx))
		require.ErrorIs(t, end(tx), pgx.ErrTxClosed)
		require.ErrorIs(t, tx.Hold(t.Context(), insert), pgx.ErrTxClosed)
		_, err := tx.Exec(t.Context(), "SELECT 1")
		require.ErrorIs(t, err, pgx.ErrTxClosed)
		rows, err := tx.Query(t.Context(), "SELECT 1")
		require.ErrorIs(t, err, pgx.ErrTxClosed)
		require.False(t, rows.Next())
		require.ErrorIs(t, tx.SendBatch(t.Context(), &pgx.Batch{}).Close(), pgx.ErrTxClosed)
		_, err = tx.Begin(t.Context())
		require.ErrorIs(t, err, pgx.ErrTxClosed)
		require.Same(t, conn, tx.Conn())
	}
	var n int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM held").Scan(&n))
	require.Equal(t, 1, n)
}

func TestCommitOfAnAbortedTransaction(t *testing.T) {
	conn := connect(t)
	tx := begin(t, conn)
	require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (topic) VALUES ($1)", "x"))
	_, err := tx.Exec(t.Context(), "nonsense")
	require.Error(t, err)
	require.ErrorIs(t, tx.Commit(t.Context()), pgx.ErrTxCommitRollback)
	require.NoError(t, conn.Ping(t.Context()))
}

// What can't be sent now is not forgotten.
func TestFlushThatIsNotSent(t *testing.T) {
	conn := connect(t)
	count := func() (n int) {
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM held").Scan(&n))
		return n
	}
	hold := func() *Tx {
		tx := begin(t, conn)
		require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (topic) VALUES ($1)", "x"))
		return tx
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()

	tx := hold()
	_, err := tx.Exec(ended, "SELECT 1")
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, 1, count())

	tx = hold()
	require.ErrorIs(t, tx.Commit(ended), context.Canceled)
	require.NoError(t, tx.Commit(t.Context()), "it is as if the first had not been")
	require.Equal(t, 2, count())

	tx = begin(t, conn)
	rows, err := tx.Query(t.Context(), "SELECT generate_series(1, 10)")
	require.NoError(t, err)
	require.True(t, rows.Next())
	require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (topic) VALUES ($1)", "x"))
	_, err = tx.Exec(t.Context(), "SELECT 1")
	require.ErrorContains(t, err, "conn busy")
	rows.Close()
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, 3, count())
}

// Whoever takes the connection is not told that what he relies on could not be
// sent; so he is told at the end.
func TestConnectionIsTakenWhileItIsBusy(t *testing.T) {
	conn := connect(t)
	_, err := conn.Prepare(t.Context(), insert, insert)
	require.NoError(t, err)
	tx := begin(t, conn)
	rows, err := tx.Query(t.Context(), "SELECT generate_series(1, 10)")
	require.NoError(t, err)
	require.True(t, rows.Next())
	require.NoError(t, tx.Hold(t.Context(), insert, "x", int64(1), []byte{}, [][]byte{}, []int64{}))
	_ = tx.Conn()
	rows.Close()
	_, err = tx.Exec(t.Context(), "SELECT 1")
	require.ErrorContains(t, err, "conn busy")
	require.ErrorContains(t, tx.Commit(t.Context()), "conn busy")
	require.EqualValues(t, 'I', conn.PgConn().TxStatus())
}

// A statement that is sent at once fails at once in a transaction that has failed,
// and its savepoint can still be gone back to.
func TestNothingIsHeldBackAfterAFailure(t *testing.T) {
	conn := connect(t)
	tx := begin(t, conn)
	exec := func(sql string) error { _, err := tx.Exec(t.Context(), sql); return err }
	require.NoError(t, exec("SAVEPOINT here"))
	require.Error(t, exec("nonsense"))
	require.ErrorContains(t, tx.Hold(t.Context(), "INSERT INTO held (topic) VALUES ($1)", "lost"), "current transaction is aborted")
	require.NoError(t, exec("ROLLBACK TO SAVEPOINT here"))
	require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (topic) VALUES ($1)", ""))
	require.NoError(t, tx.Commit(t.Context()))
	var topic string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT topic FROM held").Scan(&topic))
	require.Empty(t, topic)
}

// A pooler, or a user, may have the server forget what was prepared.
func TestServerForgetsWhatWasPrepared(t *testing.T) {
	for name, end := range map[string]func(*Tx) error{
		"at the commit":             func(tx *Tx) error { return tx.Commit(t.Context()) },
		"before the next statement": func(tx *Tx) error { return tx.Flush(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			conn := connect(t)
			tx := begin(t, conn)
			require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (topic) VALUES ($1)", "x"))
			require.NoError(t, tx.Commit(t.Context()))
			_, err := conn.Exec(t.Context(), "DEALLOCATE ALL")
			require.NoError(t, err)
			plain, err := conn.Begin(t.Context())
			require.NoError(t, err)
			require.NoError(t, plain.Commit(t.Context()), "it does not use what was prepared here")
			tx = begin(t, conn)
			require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (topic) VALUES ($1)", "x"))
			require.ErrorContains(t, end(tx), "does not exist")
			require.True(t, conn.IsClosed(), "a pool makes another")
		})
	}
}

// endsLate is a context that has ended, but did not say so when it was asked first.
type endsLate struct {
	context.Context
	asked *bool
}

func (c endsLate) Err() error {
	if !*c.asked {
		*c.asked = true
		return nil
	}
	return c.Context.Err()
}

func TestContextEndsBeforeWhatIsHeldBackIsSent(t *testing.T) {
	conn := connect(t)
	tx := begin(t, conn)
	require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (topic) VALUES ($1)", "x"))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, tx.Flush(endsLate{ended, new(bool)}), context.Canceled)
	require.ErrorIs(t, tx.Commit(t.Context()), context.Canceled, "without it nothing may be committed")
	require.EqualValues(t, idle, conn.PgConn().TxStatus())
}

func TestBeginIsSentWithTheFirstStatement(t *testing.T) {
	conn := connect(t)
	later := func() *Tx {
		tx, err := On(t.Context(), conn)
		require.NoError(t, err)
		tx.BeginLater()
		return tx
	}
	status := func() byte { return conn.PgConn().TxStatus() }
	count := func() (n int) {
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM held").Scan(&n))
		return n
	}
	for name, first := range map[string]func(tx *Tx){
		"nothing": func(*Tx) {},
		"a query": func(tx *Tx) {
			require.NoError(t, tx.QueryRow(t.Context(), "SELECT 1").Scan(new(int)))
			require.EqualValues(t, inTransaction, status())
		},
		"a statement without parameters": func(tx *Tx) {
			_, ok, err := tx.BeginWith(t.Context(), "SELECT 1; SELECT 2")
			require.NoError(t, err)
			require.False(t, ok)
			_, err = tx.Exec(t.Context(), "SELECT 1; SELECT 2")
			require.NoError(t, err)
			require.EqualValues(t, inTransaction, status())
		},
		"one that is held back": func(tx *Tx) {
			require.NoError(t, tx.Hold(t.Context(), "INSERT INTO held (topic) VALUES ($1)", "x"))
			require.EqualValues(t, inTransaction, status())
		},
		"the connection": func(tx *Tx) {
			_ = tx.Conn()
			require.EqualValues(t, inTransaction, status())
		},
		"a statement": func(tx *Tx) {
			n, ok, err := tx.BeginWith(t.Context(), "INSERT INTO held (topic) VALUES ($1), ('y')", "x")
			require.NoError(t, err)
			require.True(t, ok)
			require.EqualValues(t, 2, n)
			require.EqualValues(t, inTransaction, status())
			_, ok, err = tx.BeginWith(t.Context(), "INSERT INTO held (topic) VALUES ($1)", "x")
			require.NoError(t, err)
			require.False(t, ok, "it has begun")
		},
		"one that fails": func(tx *Tx) {
			_, ok, err := tx.BeginWith(t.Context(), "INSERT INTO held (at) SELECT 1 / $1::bigint", int64(0))
			require.ErrorContains(t, err, "division by zero")
			require.True(t, ok)
			require.EqualValues(t, failed, status())
		},
		"one that can't be prepared": func(tx *Tx) {
			_, _, err := tx.BeginWith(t.Context(), "INSERT INTO nowhere VALUES ($1)", "x")
			require.Error(t, err)
			require.EqualValues(t, idle, status())
		},
		"one whose context ends": func(tx *Tx) {
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			_, ok, _ := tx.BeginWith(ended, "INSERT INTO held (topic) VALUES ($1)", "x")
			require.False(t, ok)
			_, ok, err := tx.BeginWith(endsLate{ended, new(bool)}, "INSERT INTO held (topic) VALUES ($1)", "x")
			require.ErrorIs(t, err, context.Canceled)
			require.True(t, ok)
			require.True(t, tx.BeginsLater(), "the server knows nothing of it")
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := count()
			tx := later()
			first(tx)
			require.NoError(t, tx.Rollback(t.Context()))
			require.EqualValues(t, idle, status())
			require.Equal(t, before, count())
			require.ErrorIs(t, tx.Commit(t.Context()), pgx.ErrTxClosed)
			require.False(t, tx.BeginsLater())
		})
	}
	tx := later()
	require.NoError(t, tx.Commit(t.Context()))
	require.EqualValues(t, idle, status())
}
