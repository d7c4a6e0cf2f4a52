package driver

import (
	"errors"
	"fmt"
	"strings"

	"github.com/millrace-go/millrace/internal/failure"
)

var (
	// ErrClosed is returned by every use of a closed broker.
	ErrClosed = errors.New("broker is closed")

	// ErrBusy is in the chain of an error about a group that has running members.
	ErrBusy = errors.New("the group has running members")

	// ErrNotProvisioned is in the chain of every error about a topic or group that
	// the broker does not have and that the driver may not create. Such errors are
	// permanent.
	ErrNotProvisioned = errors.New("it does not exist and provisioning is off")

	// ErrTooLarge is in the chain of every error about an event over the
	// broker's size limit. Such errors are permanent.
	ErrTooLarge = errors.New("event is too large")

	// ErrInvalidName is in the chain of every error about a topic or group name
	// that no broker would take. Such errors are permanent.
	ErrInvalidName = errors.New("invalid name")

	// ErrUnsupported is in the chain of every error about a capability that the
	// broker lacks. Such errors are permanent.
	ErrUnsupported = errors.New("not supported by this broker")
)

// Permanent marks err as one that trying again will not mend. It returns nil
// for nil. Error text and chain stay as they are.
func Permanent(err error) error { return failure.MarkPermanent(err) }

// IsPermanent reports whether an error in err's tree has a method
// Permanent() bool that returns true.
func IsPermanent(err error) bool { return failure.IsPermanent(err) }

// TooLarge builds the error for an event over the limit, both in bytes.
func TooLarge(topic, id string, size, limit int) error {
	return Permanent(fmt.Errorf("topic %q: event %s: %w: payload of %d bytes, the limit is %d", topic, id, ErrTooLarge, size, limit))
}

// BatchError reports a Publish of which only some messages were refused.
type BatchError struct {
	Topic string
	// Errs has one element per message of the call, in order; nil means that
	// the message was accepted.
	Errs []error
}

// Error names the number of refused messages and the first reason.
func (e *BatchError) Error() string {
	failed, first := 0, error(nil)
	for _, err := range e.Errs {
		if err == nil {
			continue
		}
		if failed++; first == nil {
			first = err
		}
	}
	return fmt.Sprintf("topic %q: %d of %d events were not published, first: %v", e.Topic, failed, len(e.Errs), first)
}

// Unwrap returns the reasons.
func (e *BatchError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

const maxName = 249 // Kafka's limit, the tightest of the common brokers

// CheckTopic reports whether name can be a topic on every broker: 1 to 249
// letters, digits, '.', '_' or '-', and not "." or "..".
func CheckTopic(name string) error { return checkName("topic", name) }

// CheckGroup reports whether name can be a consumer group on every broker. The
// rule is that of CheckTopic.
func CheckGroup(name string) error { return checkName("group", name) }

func checkName(kind, name string) error {
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	bad := strings.IndexFunc(name, func(r rune) bool { return !legal(r) })
	if bad < 0 && name != "" && name != "." && name != ".." && len(name) <= maxName {
		return nil
	}
	return Permanent(fmt.Errorf("%w: %s %q: use 1 to %d letters, digits, '.', '_' or '-'", ErrInvalidName, kind, name, maxName))
}
