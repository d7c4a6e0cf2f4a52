package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testserver"
)

// wantedRounds is how often to kill the shop. It takes some seconds a round, so
// it wants to be asked for.
func wantedRounds(t *testing.T) int {
	const name = "MILLRACE_CRASH_ROUNDS"
	text := os.Getenv(name)
	if text == "" {
		t.Skipf("set %s=N to kill the shop N times, as one process and as six", name)
	}
	rounds, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return rounds
}

// TestCrash is the command as a test.
func TestCrash(t *testing.T) {
	rounds := wantedRounds(t)
	for _, form := range []string{"one", "six"} {
		t.Run(form, func(t *testing.T) {
			require.NoError(t, run(t.Context(), t.Logf, config{form: form, rounds: rounds, inFlight: 200, fail: 0.1, decline: 0.1, seed: 1}))
		})
	}
}

// TestCrashOn is TestCrash as six processes on each broker. What a killed
// process held is given to its successor sooner than by default.
func TestCrashOn(t *testing.T) {
	rounds := wantedRounds(t)
	for _, broker := range []struct{ name, params string }{
		{testserver.Kafka, "session_timeout=6s&partitions=4"},
		{testserver.AMQP, "queues=2"},
		{testserver.Postgres, "lease=2s"},
		{testserver.MySQL, "lease=2s"},
	} {
		t.Run(broker.name, func(t *testing.T) {
			bus := testserver.URL(t, broker.name)
			if strings.Contains(bus, "?") {
				bus += "&" + broker.params
			} else {
				bus += "?" + broker.params
			}
			require.NoError(t, run(t.Context(), t.Logf, config{form: "six", rounds: rounds, inFlight: 100, fail: 0.1, decline: 0.1, seed: 1, bus: bus}))
		})
	}
}
