package resilience

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestDurationsAreReadAsTheyAreWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64().Draw(t, "duration"))
		text, err := json.Marshal(d)
		require.NoError(t, err)
		var again Duration
		require.NoError(t, json.Unmarshal(text, &again))
		require.Equal(t, d, again)
	})
}

func TestDurationsAreWhatTimePrints(t *testing.T) {
	var d Duration
	require.NoError(t, d.UnmarshalText([]byte("1h2m3.5s")))
	require.Equal(t, Duration(time.Hour+2*time.Minute+3500*time.Millisecond), d)
	require.Equal(t, "1h2m3.5s", d.String())
	require.EqualError(t, d.UnmarshalText([]byte("5 s")), `must be a duration such as "250ms" or "1m30s", got "5 s"`)
}
