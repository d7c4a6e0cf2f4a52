package resilience

import (
	"fmt"
	"time"
)

// Duration is a time.Duration that is text in JSON, YAML and other formats whose
// decoders know encoding.TextUnmarshaler: "250ms", "1m30s".
type Duration time.Duration

// MarshalText returns the duration as time.Duration prints it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf(`must be a duration such as "250ms" or "1m30s", got %q`, text)
	}
	*d = Duration(parsed)
	return nil
}

// String returns the duration as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }
