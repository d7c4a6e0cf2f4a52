package idempotency

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Guard has operations with effects outside of a database done once, by what it
// keeps in a Store: [Do], [Leased], [Guard.HTTP] and package grpcidempotency
// stand on it. It is safe for concurrent use; use one per store and policy, for
// concurrent duplicates within it cost the store nothing. There is nothing to
// close: its goroutines end with the calls that started them.
type Guard struct {
	store  Store
	policy Policy
	err    error // what was wrong with the arguments of NewGuard

	mu      sync.Mutex
	flights map[flightKey]*flight
}

// Policy says how a Guard works. The zero value is safe.
type Policy struct {
	// Lease is how long a claim is held without a sign of life. It is renewed every
	// third of it while the function runs. After a crash an operation waits for it,
	// so shorter is faster; a holder that stands still for longer (a pause of the
	// process, an unreachable store) is overtaken. At least 10 ms. Defaults to 30 s.
	Lease time.Duration

	// Retention is how long results are kept for duplicates, and the age from which
	// an operation of which nothing is known is refused, see IssuedAt. Keep it longer
	// than anybody may send again: a broker, a client, a dead letter. Defaults to 30
	// days.
	Retention time.Duration

	// Wait is how long a duplicate waits for the first one's result, at most; then
	// it gets an *InProgressError. Negative: it never waits. Defaults to 5 s.
	Wait time.Duration

	// MaxHold is how long a function may run. Then its context is cancelled with
	// cause ErrHeldTooLong and its lease is renewed no more, so that one that hangs
	// does not hold its key for ever. Defaults to an hour.
	MaxHold time.Duration

	// MaxResult bounds a result in bytes, encoded. A larger one goes to the first
	// caller only; duplicates get ErrNoResult. Defaults to 256 KiB.
	MaxResult int

	// MaxSkew is how far the clocks of those who issue operations, the store's and
	// this process's may differ. Results are kept for so much longer. Defaults to 5
	// minutes.
	MaxSkew time.Duration

	// Logger gets what no caller is told. Defaults to slog.Default() at the time of
	// logging.
	Logger *slog.Logger
}

// Defaults of Policy.
const (
	defaultLease     = 30 * time.Second
	defaultRetention = 30 * 24 * time.Hour
	defaultWait      = 5 * time.Second
	defaultMaxHold   = time.Hour
	defaultMaxResult = 256 << 10
	defaultMaxSkew   = 5 * time.Minute

	minLease = 10 * time.Millisecond
)

// NewGuard returns a guard. Whatever is wrong with the arguments is returned by
// every use.
func NewGuard(s Store, p Policy) *Guard {
	g := &Guard{store: s, policy: p.withDefaults(), flights: map[flightKey]*flight{}}
	var errs []error
	if s == nil {
		errs = append(errs, errors.New("the store is nil"))
	}
	if err := errors.Join(append(errs, g.policy.check())...); err != nil {
		g.err = fmt.Errorf("idempotency: NewGuard: %w", err)
	}
	return g
}

func (p Policy) withDefaults() Policy {
	orElse(&p.Lease, defaultLease)
	orElse(&p.Retention, defaultRetention)
	orElse(&p.Wait, defaultWait)
	orElse(&p.MaxHold, defaultMaxHold)
	orElse(&p.MaxResult, defaultMaxResult)
	orElse(&p.MaxSkew, defaultMaxSkew)
	return p
}

func (p Policy) check() error {
	var errs []error
	if p.Lease < minLease {
		errs = append(errs, fmt.Errorf("the policy's Lease must be at least %v, got %v", minLease, p.Lease))
	}
	for _, field := range []struct {
		name  string
		value int64
	}{{"Retention", int64(p.Retention)}, {"MaxHold", int64(p.MaxHold)}, {"MaxSkew", int64(p.MaxSkew)}, {"MaxResult", int64(p.MaxResult)}} {
		if field.value < 0 {
			errs = append(errs, fmt.Errorf("the policy's %s must not be negative", field.name))
		}
	}
	return errors.Join(errs...)
}

// orElse gives a field its default.
func orElse[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (g *Guard) log(k Key) *slog.Logger {
	l := g.policy.Logger
	if l == nil {
		l = slog.Default()
	}
	return l.With("scope", k.Scope, "id", k.ID)
}
