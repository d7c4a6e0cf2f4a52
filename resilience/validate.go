package resilience

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// check collects what is wrong with a configuration.
type check struct {
	what string
	errs []error
}

func checking(kind, name string) *check { return &check{what: kind + quoted(name)} }

func (c *check) that(ok bool, format string, args ...any) {
	if !ok {
		c.errs = append(c.errs, fmt.Errorf(format, args...))
	}
}

// notNegative reports fields that must not be below zero.
func notNegative[T cmp.Ordered](c *check, field string, v T) {
	var zero T
	c.that(v >= zero, "%s must not be negative, got %v", field, v)
}

func (c *check) err() error {
	if len(c.errs) == 0 {
		return nil
	}
	return fmt.Errorf("resilience: %s: %w", c.what, errors.Join(c.errs...))
}

func orDefault[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// century is more than any duration of a configuration, and small enough to be
// added to the time.
const century = 100 * 365 * 24 * time.Hour

// positive is a duration that a configuration must have.
func (c *check) positive(field string, d time.Duration) {
	c.that(d > 0 && d <= century, "%s must be positive and at most a century, got %v", field, d)
}
