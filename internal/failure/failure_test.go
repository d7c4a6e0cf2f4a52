package failure_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/failure"
)

var errDown = errors.New("down")

// saying is an error that says what it is.
type saying struct {
	error
	class     failure.Class
	permanent bool
}

func (s saying) Class() failure.Class { return s.class }
func (s saying) Permanent() bool      { return s.permanent }

func TestOf(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want failure.Class
	}{
		"nil":                       {nil, failure.None},
		"any error":                 {errDown, failure.Transient},
		"deadline":                  {context.DeadlineExceeded, failure.Transient},
		"cancelled":                 {fmt.Errorf("stopped: %w", context.Canceled), failure.Cancelled},
		"throttled":                 {fmt.Errorf("later: %w", failure.WithRetryAfter(errDown, time.Second)), failure.Throttled},
		"throttled without a time":  {failure.WithRetryAfter(errDown, 0), failure.Throttled},
		"permanent":                 {fmt.Errorf("never: %w", failure.MarkPermanent(errDown)), failure.Permanent},
		"permanent beside another":  {errors.Join(errDown, failure.MarkPermanent(errDown)), failure.Permanent},
		"permanent beats cancelled": {errors.Join(context.Canceled, failure.MarkPermanent(errDown)), failure.Permanent},
		"permanent beats its class": {saying{errDown, failure.Transient, true}, failure.Permanent},
		"not permanent":             {saying{errDown, failure.None, false}, failure.Transient},
		"class beats cancelled":     {saying{context.Canceled, failure.Transient, false}, failure.Transient},
		"class of the outermost":    {fmt.Errorf("x: %w", saying{errDown, failure.Throttled, false}), failure.Throttled},
		"no class says nothing":     {errors.Join(saying{errDown, failure.None, false}, context.Canceled), failure.Cancelled},
		"cancelled beats throttled": {failure.WithRetryAfter(context.Canceled, time.Second), failure.Cancelled},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, failure.Of(test.err)) })
	}
}

func TestMarks(t *testing.T) {
	require.NoError(t, failure.MarkPermanent(nil))
	require.NoError(t, failure.WithRetryAfter(nil, time.Second))
	require.False(t, failure.IsPermanent(nil))
	require.False(t, failure.IsRejected(nil))
	for _, err := range []error{failure.MarkPermanent(errDown), failure.WithRetryAfter(errDown, time.Second)} {
		require.ErrorIs(t, err, errDown)
		require.EqualError(t, err, "down")
	}
}

func TestRetryAfter(t *testing.T) {
	_, asked := failure.RetryAfter(errDown)
	require.False(t, asked)
	_, asked = failure.RetryAfter(nil)
	require.False(t, asked)
	after, asked := failure.RetryAfter(fmt.Errorf("outer: %w", failure.WithRetryAfter(failure.WithRetryAfter(errDown, time.Hour), time.Second)))
	require.True(t, asked)
	require.Equal(t, time.Second, after, "the outermost counts")
}

// repeatable is an error that says whether its call may be made again.
type repeatable bool

func (repeatable) Error() string      { return "down" }
func (r repeatable) Repeatable() bool { return bool(r) }

func TestIsRepeatable(t *testing.T) {
	require.True(t, failure.IsRepeatable(nil))
	require.True(t, failure.IsRepeatable(errDown))
	require.False(t, failure.IsRepeatable(fmt.Errorf("outer: %w", repeatable(false))))
	require.True(t, failure.IsRepeatable(errors.Join(repeatable(true), repeatable(false))), "the first counts")
}

// rejected is an error that says whether a policy turned the call away.
type rejected struct {
	error
	yes bool
}

func (r rejected) Rejected() bool { return r.yes }
func (r rejected) Unwrap() error  { return r.error }

func TestIsRejected(t *testing.T) {
	require.False(t, failure.IsRejected(errDown))
	require.True(t, failure.IsRejected(fmt.Errorf("outer: %w", rejected{errDown, true})))
	require.False(t, failure.IsRejected(rejected{rejected{errDown, true}, false}), "the outermost knows")
}

func TestClassString(t *testing.T) {
	for class, want := range map[failure.Class]string{
		failure.None: "none", failure.Transient: "transient", failure.Throttled: "throttled",
		failure.Permanent: "permanent", failure.Cancelled: "cancelled", -1: "unknown", 5: "unknown",
	} {
		require.Equal(t, want, class.String())
	}
}
