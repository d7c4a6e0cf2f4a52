package resilience

import (
	"fmt"
	"math"
	"time"
)

// BackoffShape says how pauses between attempts grow.
type BackoffShape string

const (
	// Exponential pauses grow by Factor from Base to Max, and a random share of
	// each, Jitter, is taken off. It is the default.
	Exponential BackoffShape = "exponential"
	// Fixed pauses are all Base, less a random share of Jitter.
	Fixed BackoffShape = "fixed"
	// Decorrelated pauses are random between Base and three times the pause
	// before, up to Max: the "decorrelated jitter" of
	// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
	Decorrelated BackoffShape = "decorrelated"
)

// Backoff is the pauses between attempts. The zero value is exponential from
// 100 ms to 10 s with half of each pause random.
type Backoff struct {
	Shape  BackoffShape
	Base   time.Duration // the first pause. Defaults to 100 ms
	Max    time.Duration // the longest pause. Defaults to 100 times Base
	Factor float64       // of growth, at least 1. Defaults to 2
	// Jitter is the share of each pause, up to 1, of which a random part is taken
	// off, so that clients that failed together don't come back together.
	// Negative means none. Defaults to 0.5.
	Jitter float64
}

func (b Backoff) withDefaults() Backoff {
	b.Shape = orDefault(b.Shape, Exponential)
	b.Base = orDefault(b.Base, 100*time.Millisecond)
	b.Max = orDefault(b.Max, 100*b.Base)
	b.Factor = orDefault(b.Factor, 2)
	b.Jitter = orDefault(b.Jitter, 0.5)
	return b
}

func (b Backoff) validate(c *check) {
	c.that(b.Shape == Exponential || b.Shape == Fixed || b.Shape == Decorrelated, "Backoff.Shape must be exponential, fixed or decorrelated, got %q", b.Shape)
	c.that(b.Base > 0, "Backoff.Base must be positive, got %v", b.Base)
	c.that(b.Max >= b.Base, "Backoff.Max must be at least Base (%v), got %v", b.Base, b.Max)
	c.that(b.Factor >= 1, "Backoff.Factor must be at least 1, got %v", b.Factor)
	c.that(b.Jitter <= 1, "Backoff.Jitter must be at most 1, got %v", b.Jitter)
}

// pause returns the pause after the given attempt, the first being 1. last is
// the pause before, random a number in [0, 1).
func (b Backoff) pause(attempt int, last time.Duration, random func() float64) time.Duration {
	if b.Shape == Decorrelated {
		span := float64(3*max(last, b.Base) - b.Base)
		return min(b.Max, b.Base+time.Duration(span*random()))
	}
	d := float64(b.Base)
	if b.Shape == Exponential {
		d = min(float64(b.Max), d*math.Pow(b.Factor, float64(attempt-1)))
	}
	if b.Jitter > 0 {
		d -= d * b.Jitter * random()
	}
	return time.Duration(d)
}

// notBefore returns a pause that an error asks for, and up to half of Jitter
// more: whoever was turned away at a time was asked for the same.
func (b Backoff) notBefore(after time.Duration, random func() float64) time.Duration {
	if b.Jitter > 0 {
		after += time.Duration(float64(after) * b.Jitter / 2 * random())
	}
	return after
}

// String returns the backoff in words.
func (b Backoff) String() string {
	switch b.Shape {
	case Fixed:
		return fmt.Sprintf("fixed %v", b.Base)
	case Decorrelated:
		return fmt.Sprintf("decorrelated %v to %v", b.Base, b.Max)
	}
	return fmt.Sprintf("exponential %v to %v", b.Base, b.Max)
}
