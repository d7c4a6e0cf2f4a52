package idempotency_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
)

var quiet = slog.New(slog.DiscardHandler)

func newGuard(s idempotency.Store, p idempotency.Policy) *idempotency.Guard {
	p.Logger = quiet
	return idempotency.NewGuard(s, p)
}

func TestDoRunsOnceAndReplaysItsResult(t *testing.T) {
	type receipt struct {
		ID    string
		Cents int
	}
	store := newProbe()
	guards := []*idempotency.Guard{newGuard(store, idempotency.Policy{}), newGuard(store, idempotency.Policy{})}
	want := receipt{"r-1", 4200}
	for i := range 4 {
		got, replayed, err := idempotency.Do(t.Context(), guards[i%2], orderKey, func(_ context.Context, c idempotency.Claim) (receipt, error) {
			require.Zero(t, i, "called again")
			require.Equal(t, orderKey, c.Key)
			require.Equal(t, 1, c.Attempt)
			require.Positive(t, c.Token)
			return want, nil
		})
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, i > 0, replayed)
	}
	require.EqualValues(t, 1, store.completions.Load())
	require.Zero(t, store.releases.Load())
	_, replayed, err := idempotency.Do(t.Context(), guards[0], orderKey, answer(7))
	require.True(t, replayed)
	require.ErrorIs(t, err, idempotency.ErrNoResult, "another type")
	require.True(t, eventbus.IsPermanent(err))
}

func TestErrorsReleaseAndAreNotKept(t *testing.T) {
	g := newGuard(newProbe(), idempotency.Policy{})
	tokens := []int64{0}
	for i, fail := range []error{errors.New("first"), eventbus.Permanent(errors.New("second")), context.Canceled} {
		_, replayed, err := idempotency.Do(t.Context(), g, orderKey, func(_ context.Context, c idempotency.Claim) (string, error) {
			require.Equal(t, i+1, c.Attempt)
			tokens = append(tokens, c.Token)
			return "", fail
		})
		require.Same(t, fail, err, "the function's own error, for the retry policy to read")
		require.False(t, replayed)
		require.Greater(t, tokens[i+1], tokens[i])
	}
	v, _, err := idempotency.Do(t.Context(), g, orderKey, answer("done"))
	require.NoError(t, err)
	require.Equal(t, "done", v)
}

func TestPanicReleasesAndGoesOn(t *testing.T) {
	store := newProbe()
	g := newGuard(store, idempotency.Policy{})
	require.PanicsWithValue(t, "boom", func() {
		_, _, _ = idempotency.Do(t.Context(), g, orderKey, func(context.Context, idempotency.Claim) (string, error) { panic("boom") })
	})
	require.EqualValues(t, 1, store.releases.Load())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = idempotency.Do(context.Background(), g, orderKey, func(context.Context, idempotency.Claim) (string, error) {
			runtime.Goexit() // as require does in a goroutine
			return "", nil
		})
	}()
	<-done
	require.EqualValues(t, 2, store.releases.Load())
	_, replayed, err := idempotency.Do(t.Context(), g, orderKey, answer("done"))
	require.NoError(t, err)
	require.False(t, replayed)
}

func TestConcurrentDuplicatesShareOneCallAndOneClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		g := newGuard(store, idempotency.Policy{Wait: time.Minute})
		var calls, replays atomic.Int32
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				v, replayed, err := g.Do(t.Context(), orderKey, func(context.Context, idempotency.Claim) ([]byte, error) {
					calls.Add(1)
					time.Sleep(40 * time.Second)
					return []byte("ok"), nil
				})
				if err != nil || string(v) != "ok" {
					t.Errorf("%q, %v", v, err)
				}
				if replayed {
					replays.Add(1)
				}
				clear(v) // is the caller's own
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, calls.Load())
		require.EqualValues(t, 49, replays.Load())
		require.EqualValues(t, 1, store.claims.Load(), "duplicates in one process ask the store nothing")
	})
}

func TestDuplicatesOfAFailedCallTryOneAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(newProbe(), idempotency.Policy{Wait: time.Minute})
		var calls, inside, failures atomic.Int32
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, _, err := idempotency.Do(t.Context(), g, orderKey, func(context.Context, idempotency.Claim) (string, error) {
					if inside.Add(1) != 1 {
						t.Error("two at once")
					}
					defer inside.Add(-1)
					time.Sleep(time.Second)
					if calls.Add(1) < 4 {
						return "", errors.New("not yet")
					}
					return "ok", nil
				})
				if err != nil {
					failures.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 4, calls.Load())
		require.EqualValues(t, 3, failures.Load())
	})
}

func TestDuplicateInAnotherProcessWaitsForTheFirstResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		first, second := newGuard(store, idempotency.Policy{}), newGuard(store, idempotency.Policy{})
		started := make(chan struct{})
		go func() {
			_, _, err := idempotency.Do(t.Context(), first, orderKey, func(context.Context, idempotency.Claim) (string, error) {
				close(started)
				time.Sleep(3 * time.Second)
				return "ok", nil
			})
			if err != nil {
				t.Error(err)
			}
		}()
		<-started
		v, replayed, err := idempotency.Do(t.Context(), second, orderKey, must(t))
		require.NoError(t, err)
		require.True(t, replayed)
		require.Equal(t, "ok", v)
		require.Less(t, store.claims.Load(), int32(20), "it asks with growing pauses")
	})
}

func TestDuplicateThatWaitedEnoughIsToldWhenToTryAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newProbe()
		first, second := newGuard(store, idempotency.Policy{}), newGuard(store, idempotency.Policy{Wait: 2 * time.Second})
		end := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _, _ = idempotency.Do(t.Context(), first, orderKey, func(context.Context, idempotency.Claim) (string, error) {
				<-end
				return "ok", nil
			})
		})
		synctest.Wait()
		for guard, opts := range map[*idempotency.Guard][]idempotency.CallOption{first: {idempotency.WaitAtMost(2 * time.Second)}, second: nil} {
			begin := time.Now()
			_, _, err := idempotency.Do(t.Context(), guard, orderKey, must(t), opts...)
			require.Equal(t, 2*time.Second, time.Since(begin))
			require.ErrorIs(t, err, idempotency.ErrInProgress)
			var after interface{ RetryAfter() time.Duration } // as eventbus asks
			require.ErrorAs(t, err, &after)
			require.Positive(t, after.RetryAfter())
			require.LessOrEqual(t, after.RetryAfter(), 30*time.Second)
			require.False(t, eventbus.IsPermanent(err))
			_, _, err = idempotency.Do(t.Context(), guard, orderKey, must(t), idempotency.WaitAtMost(0))
			require.ErrorIs(t, err, idempotency.ErrInProgress)
			require.Equal(t, 2*time.Second, time.Since(begin), "asked not to wait")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, guard := range []*idempotency.Guard{first, second} {
			_, _, err := idempotency.Do(ctx, guard, orderKey, must(t))
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		close(end)
		wg.Wait()
	})
}

func TestAnotherFingerprintIsRefused(t *testing.T) {
	g := newGuard(newProbe(), idempotency.Policy{})
	_, _, err := idempotency.Do(t.Context(), g, orderKey, answer("ok"), idempotency.Fingerprint([]byte("42 EUR")))
	require.NoError(t, err)
	_, _, err = idempotency.Do(t.Context(), g, orderKey, must(t), idempotency.Fingerprint([]byte("43 EUR")))
	require.ErrorIs(t, err, idempotency.ErrMismatch)
	require.True(t, eventbus.IsPermanent(err))
	_, replayed, err := idempotency.Do(t.Context(), g, orderKey, must(t), idempotency.Fingerprint([]byte("42 EUR")))
	require.NoError(t, err)
	require.True(t, replayed)
}

func TestReplayOlderThanTheRetentionIsRefusedNotExecuted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(newProbe(), idempotency.Policy{Retention: 24 * time.Hour})
		issued := idempotency.IssuedAt(time.Now())
		_, _, err := idempotency.Do(t.Context(), g, orderKey, answer("ok"), issued)
		require.NoError(t, err)
		time.Sleep(24 * time.Hour)
		_, replayed, err := idempotency.Do(t.Context(), g, orderKey, must(t), issued)
		require.NoError(t, err)
		require.True(t, replayed)
		time.Sleep(time.Hour)
		_, _, err = idempotency.Do(t.Context(), g, orderKey, must(t), issued)
		require.ErrorIs(t, err, idempotency.ErrTooOld)
		require.True(t, eventbus.IsPermanent(err))
		require.ErrorContains(t, err, "issued 25h0m0s ago, kept for 24h0m0s")
		_, replayed, err = idempotency.Do(t.Context(), g, orderKey, answer("again"), issued, idempotency.AnyAge())
		require.NoError(t, err)
		require.False(t, replayed, "asked for")
	})
}

// An issuer whose clock is ahead makes its operations look younger than they are.
func TestResultOfAnIssuerAheadIsKeptForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(newProbe(), idempotency.Policy{Retention: time.Hour})
		issued := idempotency.IssuedAt(time.Now().Add(50 * time.Minute))
		_, _, err := idempotency.Do(t.Context(), g, orderKey, answer("ok"), issued)
		require.NoError(t, err)
		time.Sleep(100 * time.Minute)
		_, replayed, err := idempotency.Do(t.Context(), g, orderKey, must(t), issued)
		require.NoError(t, err)
		require.True(t, replayed)
		time.Sleep(20 * time.Minute)
		_, _, err = idempotency.Do(t.Context(), g, orderKey, must(t), issued)
		require.ErrorIs(t, err, idempotency.ErrTooOld)
	})
}

// An operation that keeps failing for longer than the retention is known, so its
// next try is no replay.
func TestFailingOperationIsNotTooOldWhileItIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(newProbe(), idempotency.Policy{Retention: 24 * time.Hour})
		issued := idempotency.IssuedAt(time.Now())
		for i := range 5 {
			_, _, err := idempotency.Do(t.Context(), g, orderKey, func(_ context.Context, c idempotency.Claim) (string, error) {
				require.Equal(t, i+1, c.Attempt)
				return "", errors.New("down")
			}, issued)
			require.EqualError(t, err, "down")
			time.Sleep(20 * time.Hour)
		}
	})
}

// Whenever an operation with a time comes again, and however much the clocks of
// issuers differ within MaxSkew, it is done at most once.
func TestOperationWithATimeIsNeverDoneTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		skew := time.Duration(rapid.Int64Range(-int64(5*time.Minute), int64(5*time.Minute)).Draw(rt, "skew"))
		if rapid.Bool().Draw(rt, "wild") {
			skew = time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "ahead"))
		}
		pauses := rapid.SliceOfN(rapid.Int64Range(0, int64(40*time.Minute)), 1, 12).Draw(rt, "pauses")
		synctest.Test(t, func(*testing.T) {
			store := idempotency.NewMemoryStore(idempotency.MemoryConfig{})
			g := newGuard(store, idempotency.Policy{Retention: time.Hour})
			issued := idempotency.IssuedAt(time.Now().Add(skew))
			done := 0
			for _, p := range pauses {
				time.Sleep(time.Duration(p))
				_, err := store.Prune(context.Background())
				require.NoError(rt, err)
				_, _, err = idempotency.Do(context.Background(), g, orderKey, func(context.Context, idempotency.Claim) (string, error) {
					done++
					return "", nil
				}, issued)
				if !errors.Is(err, idempotency.ErrTooOld) {
					require.NoError(rt, err)
				}
			}
			require.LessOrEqual(rt, done, 1)
		})
	})
}

func TestResultsThatCanNotBeKeptGoToTheFirstCallerOnly(t *testing.T) {
	g := newGuard(newProbe(), idempotency.Policy{MaxResult: 10})
	v, replayed, err := idempotency.Do(t.Context(), g, orderKey, answer("longer than ten bytes"))
	require.NoError(t, err)
	require.False(t, replayed)
	require.Equal(t, "longer than ten bytes", v)
	_, replayed, err = idempotency.Do(t.Context(), g, orderKey, must(t))
	require.True(t, replayed)
	require.ErrorIs(t, err, idempotency.ErrNoResult)
	require.True(t, eventbus.IsPermanent(err))

	infinite := idempotency.Key{Scope: "math", ID: "1/0"}
	x, _, err := idempotency.Do(t.Context(), g, infinite, answer(math.Inf(1)))
	require.NoError(t, err)
	require.Equal(t, math.Inf(1), x)
	_, _, err = idempotency.Do(t.Context(), g, infinite, answer(math.Inf(1)))
	require.ErrorIs(t, err, idempotency.ErrNoResult)
	require.ErrorContains(t, err, "could not be encoded")
}

func TestWrongArgumentsOfGuardsAreReportedByEveryUse(t *testing.T) {
	store := idempotency.NewMemoryStore(idempotency.MemoryConfig{})
	for _, g := range []*idempotency.Guard{
		nil,
		idempotency.NewGuard(nil, idempotency.Policy{}),
		idempotency.NewGuard(store, idempotency.Policy{Lease: time.Millisecond}),
		idempotency.NewGuard(store, idempotency.Policy{Retention: -1}),
		idempotency.NewGuard(store, idempotency.Policy{MaxResult: -1}),
	} {
		_, _, err := idempotency.Do(t.Context(), g, orderKey, must(t))
		require.ErrorContains(t, err, "idempotency: ")
		_, _, err = g.Do(t.Context(), orderKey, nil)
		require.ErrorContains(t, err, "idempotency: ")
	}
	g := newGuard(store, idempotency.Policy{})
	for _, k := range []idempotency.Key{{}, {Scope: "s"}, {ID: "i"}} {
		_, _, err := idempotency.Do(t.Context(), g, k, must(t))
		require.True(t, eventbus.IsPermanent(err))
	}
}

func TestStoreThatFailsMeansThatNothingRan(t *testing.T) {
	store := newProbe()
	down := errors.New("connection refused")
	store.onClaim = func() error { return down }
	_, _, err := idempotency.Do(t.Context(), newGuard(store, idempotency.Policy{}), orderKey, must(t))
	require.ErrorIs(t, err, down)
}

func TestFullMemoryStoreRefusesAndForgetsNothingThatIsStillToBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := idempotency.NewMemoryStore(idempotency.MemoryConfig{MaxEntries: 2})
		g := newGuard(store, idempotency.Policy{Retention: time.Hour})
		do := func(id string) (bool, error) {
			_, replayed, err := idempotency.Do(t.Context(), g, idempotency.Key{Scope: "s", ID: id}, answer(id))
			return replayed, err
		}
		for _, id := range []string{"a", "b"} {
			_, err := do(id)
			require.NoError(t, err)
		}
		_, err := do("c")
		require.ErrorIs(t, err, idempotency.ErrFull)
		require.ErrorContains(t, err, "raise MaxEntries")
		require.False(t, eventbus.IsPermanent(err))
		for _, id := range []string{"a", "b"} {
			replayed, err := do(id)
			require.NoError(t, err)
			require.True(t, replayed)
		}
		time.Sleep(2 * time.Hour)
		_, err = do("c")
		require.NoError(t, err)
		require.Equal(t, 1, store.Len())
	})
}

func TestTimeOfUUID(t *testing.T) {
	id, err := uuid.NewV7()
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), idempotency.TimeOfUUID(id.String()), time.Minute)
	require.Equal(t, int64(0x017f22e279b0), idempotency.TimeOfUUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F").UnixMilli(), "RFC 9562, A.6")
	for _, other := range []string{"", "order-7", uuid.NewString(), "017f22e2-79b0-7cc3-98c4"} {
		require.Zero(t, idempotency.TimeOfUUID(other), other)
	}
}
