package eventbus

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// RetryPolicy says what happens to an event whose handler fails: some tries in
// place, then delayed redeliveries with the same tries each, then the
// dead-letter topic. The zero value is the default policy.
type RetryPolicy struct {
	// Tries is how often the handler is called per delivery, without giving the
	// event back. Keep it small: the key, and one of the handler's slots, wait
	// meanwhile. Defaults to 3.
	Tries int

	// Backoff is the pause before the second try; it doubles from try to try up
	// to a second and is shortened at random by up to half. Defaults to 50 ms.
	Backoff time.Duration

	// Delays are the pauses before each redelivery; empty but not nil means no
	// redelivery. Defaults to 1 s, 5 s, 30 s, 2 min, 10 min, and to none on a
	// broker that has no due times unless KeepOrder is set.
	Delays []time.Duration

	// Redeliveries is how many redeliveries there are at most; beyond the list,
	// the last of Delays repeats. Defaults to the length of Delays.
	Redeliveries int

	// KeepOrder makes later events of the same key wait for a redelivery.
	// Without it they overtake.
	KeepOrder bool
}

const maxBackoff = time.Second

var defaultDelays = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute}

func (p RetryPolicy) withDefaults(brokerDelays bool) RetryPolicy {
	if p.Tries == 0 {
		p.Tries = 3
	}
	if p.Backoff == 0 {
		p.Backoff = 50 * time.Millisecond
	}
	if p.Delays == nil && (brokerDelays || p.KeepOrder) {
		p.Delays = defaultDelays
	}
	if p.Redeliveries == 0 {
		p.Redeliveries = len(p.Delays)
	}
	return p
}

func (p RetryPolicy) validate() error {
	var errs []error
	if p.Tries < 0 {
		errs = append(errs, fmt.Errorf("retry policy: Tries must be at least 1, got %d", p.Tries))
	}
	if p.Backoff < 0 {
		errs = append(errs, fmt.Errorf("retry policy: Backoff must not be negative, got %v", p.Backoff))
	}
	if p.Redeliveries < 0 {
		errs = append(errs, fmt.Errorf("retry policy: Redeliveries must not be negative, got %d", p.Redeliveries))
	}
	if p.Redeliveries > 0 && p.Delays != nil && len(p.Delays) == 0 {
		errs = append(errs, fmt.Errorf("retry policy: %d Redeliveries, but Delays is empty", p.Redeliveries))
	}
	for i, d := range p.Delays {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("retry policy: Delays[%d] must be positive, got %v", i, d))
		}
	}
	return errors.Join(errs...)
}

// backoff is the pause after the given try, the first being 1.
func (p RetryPolicy) backoff(try int) time.Duration {
	d := p.Backoff
	for range try - 1 {
		if d *= 2; d >= maxBackoff {
			break
		}
	}
	d = min(d, max(maxBackoff, p.Backoff))
	return d - rand.N(d/2+1)
}

// next is what follows a failed try.
type next int

const (
	tryAgain  next = iota // in place
	redeliver             // give it back, to come again later
	deadEnd               // to the dead-letter topic
)

// decide says what follows try number try of delivery number attempt, and after
// which pause. Who asks for a delay by RetryAfter gets it by redelivery, or in
// place where there is none left.
func (p RetryPolicy) decide(attempt, try int, v verdict) (next, time.Duration) {
	delay, redeliveries := p.delay(attempt)
	switch {
	case v.permanent:
		return deadEnd, 0
	case try < p.Tries && (!v.asked || !redeliveries):
		return tryAgain, max(p.backoff(try), v.after)
	case redeliveries:
		return redeliver, max(delay, v.after)
	}
	return deadEnd, 0
}

// delay returns the pause before the delivery that follows the given one, or
// false when the policy has no more.
func (p RetryPolicy) delay(attempt int) (time.Duration, bool) {
	if attempt > p.Redeliveries || len(p.Delays) == 0 {
		return 0, false
	}
	return p.Delays[min(attempt, len(p.Delays))-1], true
}
