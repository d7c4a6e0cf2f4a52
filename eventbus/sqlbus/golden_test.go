package sqlbus

import (
	"database/sql"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Every later version must read what version 1 wrote: an event that is
// consumed, one that is not, one that is settled out of turn, one that waits
// for redelivery and one that is due.
func TestReadsFilesOfV1(t *testing.T) {
	script, err := os.ReadFile("testdata/v1/bus.sql")
	require.NoError(t, err)
	path := tempPath(t)
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.Exec(string(script))
	require.NoError(t, err)
	require.NoError(t, db.Close())

	readsV1(t, openAt(t, path, Config{NoProvision: true, Retention: maxRetention}))
}

func TestReadsServersOfV1(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		db := rawDB(t, url)
		defer db.Close()
		name, _, _ := strings.Cut(url, ":")
		for _, file := range []string{name + ".sql", name + "_rows.sql"} {
			script, err := os.ReadFile("testdata/v1/" + file)
			require.NoError(t, err)
			for statement := range strings.SplitSeq(strings.TrimSpace(string(script)), ";\n") {
				_, err := db.Exec(strings.TrimSuffix(statement, ";"))
				require.NoError(t, err, statement)
			}
		}
		readsV1(t, openOn(t, url, Config{NoProvision: true, Retention: maxRetention}))
	})
}

func readsV1(t *testing.T, b *Broker) {
	t.Helper()
	got := make(chan *driver.Delivery, 10)
	start(t, b, driver.Subscription{Topic: "orders", Group: "billing", Handle: into(got)})
	attempts := map[string]int{}
	for range 3 {
		d := receive(t, got)
		require.Equal(t, "order-1", d.Key)
		require.Equal(t, "billed\x00", d.Message.Metadata["note"])
		require.EqualValues(t, 13, d.Position.Partition)
		attempts[text(d)] = d.Attempt
	}
	require.Equal(t, map[string]int{"open": 1, "again": 3, "due": 1}, attempts)
	silent(t, got, 50*time.Millisecond)
}

// The tables are a stored format: a change needs a new version, and a golden of
// its own.
func TestSchemaIsThatOfV1(t *testing.T) {
	golden, err := os.ReadFile("testdata/v1/bus.sql")
	require.NoError(t, err)
	for _, statement := range schema {
		require.True(t, strings.Contains(string(golden), statement+";"), statement)
	}
}

func TestPartitionOfIsAStoredFormat(t *testing.T) {
	for key, partition := range map[string]int{"order-1": 13, "a": 12, "\xff\x00": 10} {
		require.Equal(t, partition, partitionOf(key, 32), "key %q", key)
	}
}
