// Package final marks the errors of calls that must not be made again.
package final

import "github.com/millrace-go/millrace/resilience"

// Error is what came of a call that must not be made again. Its class is that of
// the failure, since breakers have to count it, but a Retry leaves it alone.
type Error struct{ error }

// Mark returns err so marked, or nil.
func Mark(err error) error {
	if err == nil {
		return nil
	}
	return &Error{err}
}

func (e *Error) Unwrap() error { return e.error }

// Repeatable returns false.
func (*Error) Repeatable() bool { return false }

// Bare takes the mark off what a policy has returned: whether the caller may
// begin all over again is for the caller to know. What a policy made of it,
// other than the end of a Retry, stays.
func Bare(err error) error {
	switch e := err.(type) { //nolint:errorlint // the whole error, or nothing
	case *Error:
		return e.error
	case *resilience.RetryError:
		if marked, ok := e.Err.(*Error); ok { //nolint:errorlint // the same
			bare := *e
			bare.Err = marked.error
			return &bare
		}
	}
	return err
}
