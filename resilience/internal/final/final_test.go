package final_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/internal/final"
)

var errDown = errors.New("down")

func TestMark(t *testing.T) {
	require.NoError(t, final.Mark(nil))
	marked := final.Mark(errDown)
	require.ErrorIs(t, marked, errDown)
	require.EqualError(t, marked, "down")
	require.Equal(t, resilience.Transient, resilience.Classify(marked), "breakers count it")
}

func TestRetryLeavesMarkedErrorsAlone(t *testing.T) {
	calls := 0
	always := func(error) bool { return true }
	retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{If: always, Backoff: resilience.Backoff{Base: 1}}))
	err := retry.Do(context.Background(), func(context.Context) error {
		if calls++; calls == 1 {
			return errDown
		}
		return final.Mark(errDown)
	})
	require.Equal(t, 2, calls)

	bare := final.Bare(err)
	var gaveUp *resilience.RetryError
	require.ErrorAs(t, bare, &gaveUp)
	require.Equal(t, 2, gaveUp.Attempts)
	require.Equal(t, errDown, gaveUp.Err)
	require.ErrorAs(t, err, new(*final.Error), "the policy's own error is as it was")
}

func TestBare(t *testing.T) {
	require.NoError(t, final.Bare(nil))
	require.Equal(t, errDown, final.Bare(errDown))
	require.Equal(t, errDown, final.Bare(final.Mark(errDown)))
	theirs := errors.Join(final.Mark(errDown))
	require.Equal(t, theirs, final.Bare(theirs))
}
