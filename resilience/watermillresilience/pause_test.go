package watermillresilience_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/watermillresilience"
)

func TestPauses(t *testing.T) {
	for _, tt := range []struct {
		name            string
		asked           time.Duration
		shortest, later time.Duration // the first pause, and those after the tenth
	}{
		{"as asked for", 5 * time.Second, 5 * time.Second, 5 * time.Second},
		{"no longer than that somebody may close the breaker", time.Hour, 30 * time.Second, 30 * time.Second},
		{"growing when nobody knows", 0, 10 * time.Millisecond, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked []time.Time
				policy := resilience.PolicyFunc(func(context.Context, func(context.Context) error) error {
					asked = append(asked, time.Now())
					return &resilience.RejectedError{Reason: resilience.ErrOverloaded, After: tt.asked}
				})
				h := watermillresilience.Middleware(policy, watermillresilience.Config{})(nil)
				_, err := h(message.NewMessage("1", nil))
				require.ErrorIs(t, err, resilience.ErrOverloaded)
				lengths := map[time.Duration]bool{}
				for i := 1; i < len(asked)-1; i++ { // the last pause is cut short by MaxPause
					d := asked[i].Sub(asked[i-1])
					lengths[d] = true
					least := tt.shortest
					if i > 10 {
						least = tt.later
					}
					require.GreaterOrEqual(t, d, least)
					require.LessOrEqual(t, d, tt.later*5/4)
				}
				require.Greater(t, len(lengths), len(asked)/2, "pauses are random: messages that wait together don't return together")
			})
		})
	}
}

func TestPermanentRejectionsAreNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, begun := 0, time.Now()
		rejected := resilience.AsPermanent(&resilience.RejectedError{Reason: resilience.ErrOverloaded})
		h := watermillresilience.Middleware(retry(3), watermillresilience.Config{})(func(*message.Message) ([]*message.Message, error) {
			calls++
			return nil, rejected
		})
		_, err := h(message.NewMessage("1", nil))
		require.ErrorIs(t, err, resilience.ErrOverloaded)
		require.Equal(t, 1, calls)
		require.Zero(t, time.Since(begun))
	})
}
