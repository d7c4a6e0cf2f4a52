// Package brokerdocs keeps the table of docs/brokers.md equal to what the
// drivers declare.
package brokerdocs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace-go/millrace/eventbus"
	_ "github.com/millrace-go/millrace/eventbus/amqpbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	_ "github.com/millrace-go/millrace/eventbus/kafkabus"
	_ "github.com/millrace-go/millrace/eventbus/sqlbus"
	"github.com/millrace-go/millrace/internal/testserver"
)

var update = flag.Bool("update", false, "write the table into docs/brokers.md")

const (
	page       = "../../docs/brokers.md"
	begin, end = "<!-- capabilities: go test ./internal/brokerdocs -update -->\n", "<!-- end of capabilities -->\n"
)

var rows = []struct {
	name  string
	value func(driver.Capabilities) string
}{
	{"durable acknowledgement", func(c driver.Capabilities) string { return yes(c.Durable) }},
	{"order per key", func(c driver.Capabilities) string { return yes(c.KeyOrder) }},
	{"different keys side by side", func(c driver.Capabilities) string { return yes(c.KeyedConcurrency) }},
	{"competing members in a group", func(c driver.Capabilities) string { return yes(c.Groups) }},
	{"later groups read what was before", func(c driver.Capabilities) string { return yes(c.Replay) }},
	{"seek to a time", func(c driver.Capabilities) string { return yes(c.Seek) }},
	{"publish for later", func(c driver.Capabilities) string { return yes(c.Delay) }},
	{"delayed redelivery", func(c driver.Capabilities) string { return yes(c.DelayedRedelivery) }},
	{"deduplication by event id", func(c driver.Capabilities) string { return yes(c.Dedup) }},
	{"largest payload by default", func(c driver.Capabilities) string { return fmt.Sprintf("%d KiB", c.MaxPayload/1024) }},
}

func yes(has bool) string {
	if has {
		return "yes"
	}
	return "no"
}

func TestTableSaysWhatDriversDeclare(t *testing.T) {
	var urls, names []string
	for _, b := range []struct {
		name string
		url  func(*testing.T) string
	}{
		{"memory:", func(*testing.T) string { return "memory:" }},
		{"sqlite:", func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "bus.db") }},
		{"postgres:", func(t *testing.T) string { return testserver.URL(t, testserver.Postgres) }},
		{"mysql:", func(t *testing.T) string { return testserver.URL(t, testserver.MySQL) }},
		{"kafka:", embeddedKafka},
		{"amqp:", func(t *testing.T) string { return testserver.URL(t, testserver.AMQP) }},
	} {
		names, urls = append(names, b.name), append(urls, b.url(t))
	}
	table := markdown(names, declared(t, urls))

	text, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), begin)
	require.True(t, ok, "%s lacks the line %s", page, begin)
	old, after, ok := strings.Cut(rest, end)
	require.True(t, ok, "%s lacks the line %s", page, end)
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(before+begin+table+end+after), 0o644))
		return
	}
	require.Equal(t, table, old, "the drivers declare something else than %s says; go test ./internal/brokerdocs -update", page)
}

func embeddedKafka(t *testing.T) string {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return "kafka://" + cluster.ListenAddrs()[0]
}

func declared(t *testing.T, urls []string) []driver.Capabilities {
	var all []driver.Capabilities
	for _, url := range urls {
		bus, err := eventbus.Open(t.Context(), url)
		require.NoError(t, err)
		all = append(all, bus.Capabilities())
		require.NoError(t, bus.Close())
	}
	return all
}

func markdown(names []string, all []driver.Capabilities) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | `%s` |\n|---|%s\n", strings.Join(names, "` | `"), strings.Repeat("---|", len(names)))
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s |", r.name)
		for _, c := range all {
			fmt.Fprintf(&b, " %s |", r.value(c))
		}
		b.WriteString("\n")
	}
	return b.String()
}
