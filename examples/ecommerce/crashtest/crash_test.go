package main

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCrash is the command as a test. It takes some seconds a round, so it wants
// to be asked for.
func TestCrash(t *testing.T) {
	const name = "MILLRACE_CRASH_ROUNDS"
	text := os.Getenv(name)
	if text == "" {
		t.Skipf("set %s=N to kill the shop N times, as one process and as six", name)
	}
	rounds, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	for _, form := range []string{"one", "six"} {
		t.Run(form, func(t *testing.T) {
			require.NoError(t, run(t.Context(), t.Logf, config{form: form, rounds: rounds, inFlight: 200, fail: 0.1, decline: 0.1, seed: 1}))
		})
	}
}
