package sqlresilience_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/sqlresilience"
)

// state is an error with a SQLSTATE.
type state string

func (s state) Error() string    { return "ERROR: SQLSTATE " + string(s) }
func (s state) SQLState() string { return string(s) }

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		class resilience.Class
		errs  []error
	}{
		{resilience.Transient, []error{
			state("40001"), state("40P01"), state("55P03"), state("08006"), state("57P01"), state("57P03"), state("57014"), state("25P03"),
			&pgconn.PgError{Code: "40001", Message: "could not serialize access"},
			fmt.Errorf("update: %w", &mysql.MySQLError{Number: 1213, SQLState: [5]byte([]byte("40001")), Message: "Deadlock found"}),
			&mysql.MySQLError{Number: 1205}, &mysql.MySQLError{Number: 1020}, &mysql.MySQLError{Number: 1053}, &mysql.MySQLError{Number: 1927},
			errors.New("Error 1213: Deadlock found when trying to get lock"),
			errors.New("database is locked (5) (SQLITE_BUSY)"), errors.New("database table is locked"),
			driver.ErrBadConn, mysql.ErrInvalidConn, sql.ErrConnDone, io.ErrUnexpectedEOF, net.ErrClosed,
			&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, context.DeadlineExceeded,
		}},
		{resilience.Throttled, []error{
			state("53300"), &mysql.MySQLError{Number: 1040}, resilience.AsThrottled(state("23505"), time.Second),
		}},
		{resilience.Permanent, []error{
			state("23505"), state("42601"), state("22012"), state("28P01"), state("3D000"), state("25P02"), state("40002"), state("40003"), state("XX000"),
			&mysql.MySQLError{Number: 1062}, &mysql.MySQLError{Number: 1064}, &mysql.MySQLError{Number: 1045},
			errors.New("constraint failed: UNIQUE constraint failed: t.id (1555)"), errors.New("SQL logic error: no such table: t (1)"),
			sql.ErrNoRows, sql.ErrTxDone, resilience.AsPermanent(state("40001")),
			&sqlresilience.OutcomeUnknownError{Err: state("08006")},
		}},
		{resilience.Cancelled, []error{context.Canceled, fmt.Errorf("query: %w: %w", context.Canceled, state("57014"))}},
		{0, []error{nil}},
	} {
		for _, err := range c.errs {
			require.Equal(t, c.class, sqlresilience.Classify(err), "%v", err)
			require.Equal(t, c.class, resilience.Classify(sqlresilience.AsClass(err)), "%v", err)
		}
	}
}

func TestClassifyLeavesOthersAlone(t *testing.T) {
	for _, err := range []error{nil, errors.New("Error in the form"), errors.New("Error 12"), errors.New("own"), io.EOF, state("?")} {
		require.Equal(t, err, sqlresilience.AsClass(err))
		require.Equal(t, resilience.Classify(err), sqlresilience.Classify(err))
	}
}

func TestAsClassKeepsTextAndChain(t *testing.T) {
	err := sqlresilience.AsClass(fmt.Errorf("update: %w", state("40001")))
	require.EqualError(t, err, "update: ERROR: SQLSTATE 40001")
	var s state
	require.ErrorAs(t, err, &s)
	require.Equal(t, err, sqlresilience.AsClass(err), "once is enough")
}

// TestClassifyWhatDatabasesSay asks the databases themselves.
func TestClassifyWhatDatabasesSay(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		accounts(t, db)
		for statement, why := range map[string]string{
			"INSERT INTO accounts VALUES (1, 0)":    "unique",
			"INSERT INTO accounts VALUES (3, NULL)": "not null",
			"INSERT INTO nothing VALUES (3)":        "no table",
			"INSERT INTO accounts (nope) VALUES(3)": "no column",
			"SELEC 1":                               "syntax",
		} {
			_, err := db.ExecContext(t.Context(), statement)
			require.Error(t, err)
			require.Equal(t, resilience.Permanent, sqlresilience.Classify(err), "%s: %v", why, err)
		}
	})
}

func TestClassifyARefusedLogin(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		dsn := db.DSN
		if db.Dialect == dialect.MySQL {
			cfg, err := mysql.ParseDSN(dsn)
			require.NoError(t, err)
			cfg.User, cfg.Passwd = "nobody", "wrong"
			dsn = cfg.FormatDSN()
		} else {
			dsn = strings.Replace(dsn, "/millrace_", "/no_such_", 1)
		}
		d, ok := db.DB.Driver().(driver.DriverContext)
		require.True(t, ok)
		base, err := d.OpenConnector(dsn)
		require.NoError(t, err)
		r := retry()
		err = open(t, through(t, base, r)).PingContext(t.Context())
		require.Equal(t, resilience.Permanent, resilience.Classify(err), "%v", err)
		require.Zero(t, r.Stats().Retries)
	})
}

func FuzzClassify(f *testing.F) {
	f.Add("Error 1213 (40001): Deadlock", "40001")
	f.Fuzz(func(t *testing.T, text, code string) {
		err := errors.Join(errors.New(text), state(code))
		if c := sqlresilience.Classify(err); c < resilience.Transient || c > resilience.Cancelled {
			t.Fatal(c)
		}
		if got := sqlresilience.AsClass(err); got.Error() != err.Error() {
			t.Fatal(got)
		}
	})
}
