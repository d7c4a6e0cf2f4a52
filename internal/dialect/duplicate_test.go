package dialect_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
)

func TestDuplicateKeyIsToldApart(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		_, err := db.Exec("CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL)")
		require.NoError(t, err)
		_, err = db.Exec("INSERT INTO t VALUES (1, 1)")
		require.NoError(t, err)
		require.False(t, db.Dialect.IsDuplicateKey(err))
		_, err = db.Exec("INSERT INTO t VALUES (1, 2)")
		require.True(t, db.Dialect.IsDuplicateKey(err), "%v", err)
		_, err = db.Exec("INSERT INTO t VALUES (2, NULL)")
		require.Error(t, err)
		require.False(t, db.Dialect.IsDuplicateKey(err), "%v", err)
	})
}
