package eventbus

import (
	"errors"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/failure"
)

// Errors that callers may decide on, with errors.Is.
var (
	// ErrClosed is returned by every use of a closed Bus.
	ErrClosed = driver.ErrClosed
	// ErrNotProvisioned is in the chain of errors about a topic or group that the
	// broker does not have while ?provision=false forbids to create it.
	ErrNotProvisioned = driver.ErrNotProvisioned

	// ErrBusy is in the chain of errors of Bus.Seek about a group with members.
	ErrBusy = driver.ErrBusy

	// ErrTooLarge is in the chain of errors about an event over the broker's limit.
	ErrTooLarge = driver.ErrTooLarge
	// ErrInvalidName is in the chain of errors about a topic, service or handler
	// name that no broker would take.
	ErrInvalidName = driver.ErrInvalidName
	// ErrUnsupported is in the chain of errors about something that the broker
	// behind the Bus can't do.
	ErrUnsupported = driver.ErrUnsupported
	// ErrExpired is in the chain of the cause of dead letters that were not handled
	// before their expiry time; see WithExpiry.
	ErrExpired = errors.New("the event has expired")
	// ErrShutdown is the cause of the contexts of handlers that outlasted the
	// drain timeout.
	ErrShutdown = errors.New("service is shutting down")
)

// Permanent marks an error that trying again will not mend: the event goes to
// the dead-letter topic at once. It returns nil for nil.
func Permanent(err error) error { return driver.Permanent(err) }

// IsPermanent reports whether an error in err's chain has a method
// Permanent() bool that returns true.
func IsPermanent(err error) bool { return driver.IsPermanent(err) }

// RetryAfter gives an error the delay after which trying again makes sense. A
// handler that returns it is called again after d, or later where the retry
// policy says so: by a redelivery or, if none is left, by a try in place. It
// returns nil for nil.
func RetryAfter(err error, d time.Duration) error { return failure.WithRetryAfter(err, d) }
