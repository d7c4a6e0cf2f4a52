package idempotency_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
)

func TestLeaseIsRenewedEveryThirdOfItWhileTheFunctionRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		begin := time.Now()
		var renewed []time.Duration
		store.onRenew = func() error { renewed = append(renewed, time.Since(begin)); return nil }
		first := newGuard(store, idempotency.Policy{Lease: 30 * time.Second})
		second := newGuard(store, idempotency.Policy{Lease: 30 * time.Second})
		go func() {
			time.Sleep(100 * time.Second) // more than three leases
			_, _, err := idempotency.Do(t.Context(), second, orderKey, must(t), idempotency.WaitAtMost(0))
			if !errors.Is(err, idempotency.ErrInProgress) {
				t.Errorf("the second got %v", err)
			}
		}()
		_, _, err := idempotency.Do(t.Context(), first, orderKey, func(ctx context.Context, _ idempotency.Claim) (string, error) {
			time.Sleep(105 * time.Second)
			return "", ctx.Err()
		})
		require.NoError(t, err)
		var want []time.Duration
		for s := 10; s < 105; s += 10 {
			want = append(want, time.Duration(s)*time.Second)
		}
		require.Equal(t, want, renewed)
		time.Sleep(time.Minute)
		require.Len(t, renewed, len(want), "the heart has stopped")
	})
}

// Claims without a fencing token: a holder that stood still and was overtaken can
// neither record its result nor take the key away from the next one.
func TestClaimsWithoutAFencingToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		cut := errors.New("no route to host")
		store.onRenew = func() error { return cut }
		slow := newGuard(store, idempotency.Policy{Lease: 30 * time.Second})
		quick := newGuard(store.Store, idempotency.Policy{Lease: 30 * time.Second, Wait: time.Minute})
		tokens := make(chan int64, 2)
		go func() {
			time.Sleep(10 * time.Second)
			v, replayed, err := idempotency.Do(t.Context(), quick, orderKey, func(_ context.Context, c idempotency.Claim) (string, error) {
				tokens <- c.Token
				if c.Attempt != 2 {
					t.Errorf("attempt %d", c.Attempt)
				}
				return "quick", nil
			})
			if v != "quick" || replayed || err != nil {
				t.Errorf("%q, %v, %v", v, replayed, err)
			}
		}()
		begin := time.Now()
		_, _, err := idempotency.Do(t.Context(), slow, orderKey, func(ctx context.Context, c idempotency.Claim) (string, error) {
			tokens <- c.Token
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), idempotency.ErrLost)
			require.ErrorIs(t, context.Cause(ctx), cut)
			require.LessOrEqual(t, time.Since(begin), 30*time.Second, "told before anybody else can have it")
			time.Sleep(time.Minute) // does not listen
			return "slow", nil
		})
		require.ErrorIs(t, err, idempotency.ErrLost)
		require.Less(t, <-tokens, <-tokens)
		v, replayed, err := idempotency.Do(t.Context(), slow, orderKey, must(t))
		require.NoError(t, err)
		require.True(t, replayed)
		require.Equal(t, "quick", v)
	})
}

// A client that heeds no deadlines, in a network that swallows its packets.
func TestHolderIsToldInTimeAlsoIfTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		store.onRenew = func() error { time.Sleep(10 * time.Minute); return nil }
		begin := time.Now()
		_, _, err := idempotency.Do(t.Context(), newGuard(store, idempotency.Policy{Lease: 30 * time.Second}), orderKey,
			func(ctx context.Context, _ idempotency.Claim) (string, error) {
				<-ctx.Done()
				require.Equal(t, 30*time.Second, time.Since(begin))
				return "", ctx.Err()
			})
		require.ErrorIs(t, err, idempotency.ErrLost)
	})
}

func TestFunctionThatStopsBecauseTheClaimIsLostSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		store.onRenew = func() error { return idempotency.ErrLost }
		begin := time.Now()
		_, _, err := idempotency.Do(t.Context(), newGuard(store, idempotency.Policy{Lease: 30 * time.Second}), orderKey,
			func(ctx context.Context, _ idempotency.Claim) (string, error) {
				<-ctx.Done()
				return "", ctx.Err()
			})
		require.Equal(t, 10*time.Second, time.Since(begin))
		require.ErrorIs(t, err, idempotency.ErrLost)
		require.ErrorIs(t, err, context.Canceled)
	})
}

// A store that fails for less than a lease is survived.
func TestShortOutageOfTheStoreIsSurvived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		begin := time.Now()
		outage := func() error {
			if since := time.Since(begin); since > 9*time.Second && since < 27*time.Second || since > 119*time.Second && since < 135*time.Second {
				return errors.New("down")
			}
			return nil
		}
		store.onRenew, store.onComplete = outage, outage
		v, _, err := idempotency.Do(t.Context(), newGuard(store, idempotency.Policy{Lease: 30 * time.Second}), orderKey,
			func(ctx context.Context, _ idempotency.Claim) (string, error) {
				time.Sleep(2 * time.Minute)
				return "ok", ctx.Err()
			})
		require.NoError(t, err)
		require.Equal(t, "ok", v)
		require.Less(t, time.Since(begin), 136*time.Second)
	})
}

func TestMaxHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		g := newGuard(store, idempotency.Policy{Lease: 30 * time.Second, MaxHold: 5 * time.Minute})
		begin := time.Now()
		_, _, err := idempotency.Do(t.Context(), g, orderKey, func(ctx context.Context, _ idempotency.Claim) (string, error) {
			<-ctx.Done()
			require.Equal(t, 5*time.Minute, time.Since(begin))
			return "", context.Cause(ctx)
		})
		require.ErrorIs(t, err, idempotency.ErrHeldTooLong)
		require.EqualValues(t, 1, store.releases.Load())
	})
}

func TestEffectThatCanNotBeRecordedIsSaidToHaveHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		down := errors.New("down")
		store.onComplete = func() error { return down }
		g := newGuard(store, idempotency.Policy{Lease: 30 * time.Second, Wait: time.Minute})
		begin := time.Now()
		waiter := make(chan string, 1)
		go func() {
			time.Sleep(time.Second)
			v, _, _ := idempotency.Do(t.Context(), g, orderKey, must(t))
			waiter <- v
		}()
		v, _, err := idempotency.Do(t.Context(), g, orderKey, func(context.Context, idempotency.Claim) (string, error) {
			time.Sleep(2 * time.Second)
			return "charged", nil
		})
		require.ErrorIs(t, err, idempotency.ErrUnrecorded)
		require.ErrorIs(t, err, down)
		require.Equal(t, "charged", v)
		require.Equal(t, 32*time.Second, time.Since(begin), "it tries for as long as a lease")
		require.Equal(t, "charged", <-waiter, "who waited in this process knows what happened")
	})
}

// The caller has gone, but the effect has happened.
func TestSuccessIsRecordedAlsoIfTheCallerHasLeft(t *testing.T) {
	store := newProbe()
	g := newGuard(store, idempotency.Policy{})
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := idempotency.Do(ctx, g, orderKey, func(context.Context, idempotency.Claim) (string, error) {
		cancel()
		return "charged", nil
	})
	require.NoError(t, err)
	v, replayed, err := idempotency.Do(t.Context(), g, orderKey, must(t))
	require.NoError(t, err)
	require.True(t, replayed)
	require.Equal(t, "charged", v)
}

func TestCallerThatLeavesReleasesOrIsDetached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		g := newGuard(store, idempotency.Policy{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := idempotency.Do(ctx, g, orderKey, func(ctx context.Context, _ idempotency.Claim) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 1, store.releases.Load(), "although the context has ended")

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err = idempotency.Do(ctx, g, orderKey, func(inner context.Context, c idempotency.Claim) (string, error) {
			<-ctx.Done()
			require.NoError(t, inner.Err())
			found, ok := idempotency.ClaimFrom(inner)
			require.True(t, ok)
			require.Equal(t, c, found)
			return "ok", nil
		}, idempotency.Detached())
		require.NoError(t, err)
		require.EqualValues(t, 1, store.completions.Load())
	})
}
