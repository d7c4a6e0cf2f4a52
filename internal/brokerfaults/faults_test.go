// Package brokerfaults restarts, cuts and stalls real brokers under load and
// checks that no acknowledged event is lost, that each key keeps its order, and
// that everything recovers by itself.
package brokerfaults

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testserver"
)

// outage is how long a fault lasts where it does not end by itself.
const outage = 2 * time.Second

// stall is longer than any driver may take to notice a connection that is dead
// but was not closed.
const stall = 15 * time.Second

// fault happens to the broker, or to the way to it, and is over when it returns.
type fault struct {
	name  string
	short bool // part of the short form
	run   func(t *testing.T, server string, way *way)
}

var faults = []fault{
	{"sigterm", false, func(t *testing.T, server string, _ *way) {
		testserver.Terminate(t, server)
		testserver.Start(t, server)
	}},
	{"sigkill", true, func(t *testing.T, server string, _ *way) {
		testserver.Kill(t, server)
		testserver.Start(t, server)
	}},
	{"cut", true, func(_ *testing.T, _ string, way *way) {
		way.cut()
		<-time.After(outage)
		way.mend()
	}},
	{"slow", false, func(_ *testing.T, _ string, way *way) {
		way.slow(100 * time.Millisecond)
		<-time.After(outage)
		way.clear()
	}},
	{"half_open", false, func(_ *testing.T, _ string, way *way) {
		way.swallow()
		<-time.After(stall)
		way.clear()
	}},
}

// TestFaults kills servers that other tests use, so it wants to be asked for,
// and to run alone.
func TestFaults(t *testing.T) {
	const name = "MILLRACE_FAULTS"
	form := os.Getenv(name)
	if form == "" {
		t.Skipf("set %s=short or full to restart and cut real brokers under load", name)
	}
	require.Contains(t, []string{"short", "full"}, form, name)
	events := 5000
	if form == "short" {
		events = 1000
	}
	for _, server := range []string{testserver.Kafka, testserver.AMQP, testserver.Postgres, testserver.MySQL} {
		t.Run(server, func(t *testing.T) {
			url := testserver.URL(t, server)
			for _, f := range faults {
				if form == "short" && !f.short {
					continue
				}
				t.Run(f.name, func(t *testing.T) { underFault(t, server, url, events, f) })
			}
		})
	}
}

func underFault(t *testing.T, server, url string, events int, f fault) {
	way := newWay(t, server, url)
	load := newLoad(t, way, events)
	load.start()
	load.awaitHandled(events / 4)
	load.holdBack(events / 2) // so that the fault meets a load, and something is left for afterwards
	f.run(t, server, way)
	over := time.Now()
	before := load.ledger.handled()
	load.release()
	load.awaitHandled(before + 1)
	recovered := time.Since(over)
	load.finish()
	t.Logf("%d events, %d repeated, %d publishes tried again; went on %v after the fault was over", events, load.ledger.repeats(), load.retries.Load(), recovered.Round(time.Millisecond))
}
