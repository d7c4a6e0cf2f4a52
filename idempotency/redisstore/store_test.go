package redisstore_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/redisstore"
	"github.com/millrace-go/millrace/idempotency/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t testing.TB, server *miniredis.Miniredis) redis.UniversalClient {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// age lets the server's expiry follow real time, which miniredis leaves to tests.
func age(t testing.TB, server *miniredis.Miniredis) {
	t.Helper()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case now := <-tick.C:
				server.FastForward(now.Sub(last))
				last = now
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() { close(done); <-ended })
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() idempotency.Store {
		server := miniredis.RunT(t)
		age(t, server)
		return func() idempotency.Store { return redisstore.New(client(t, server), redisstore.Config{}) }
	})
}

var orderKey = idempotency.Key{Scope: "charge", ID: "order-7"}

func TestDoOverRedisInTwoProcesses(t *testing.T) {
	server := miniredis.RunT(t)
	var calls atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		g := idempotency.NewGuard(redisstore.New(client(t, server), redisstore.Config{}), idempotency.Policy{Wait: time.Minute})
		wg.Go(func() {
			v, _, err := idempotency.Do(t.Context(), g, orderKey, func(context.Context, idempotency.Claim) (string, error) {
				calls.Add(1)
				return "ok", nil
			})
			if v != "ok" || err != nil {
				t.Errorf("%q, %v", v, err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, calls.Load())
}

// A failover may lose the last writes; tokens rise nevertheless.
func TestTokensRiseAfterTheServerLostItsData(t *testing.T) {
	server := miniredis.RunT(t)
	store := redisstore.New(client(t, server), redisstore.Config{})
	q := idempotency.ClaimRequest{Key: orderKey, Lease: time.Hour, Keep: time.Hour}
	old, err := store.Claim(t.Context(), q)
	require.NoError(t, err)
	server.FlushAll()
	next, err := store.Claim(t.Context(), q)
	require.NoError(t, err)
	require.Greater(t, next.Claim.Token, old.Claim.Token)
	require.ErrorIs(t, store.Complete(t.Context(), old.Claim, nil, time.Hour), idempotency.ErrLost)
}

func TestRecordsExpireByThemselves(t *testing.T) {
	server := miniredis.RunT(t)
	store := redisstore.New(client(t, server), redisstore.Config{Prefix: "shop:"})
	r, err := store.Claim(t.Context(), idempotency.ClaimRequest{Key: orderKey, Lease: time.Minute, Keep: time.Hour})
	require.NoError(t, err)
	keys := server.Keys()
	require.Len(t, keys, 1)
	require.Regexp(t, "^shop:[0-9a-f]{64}$", keys[0])
	require.Equal(t, 61*time.Minute, server.TTL(keys[0]))
	require.NoError(t, store.Renew(t.Context(), r.Claim, 2*time.Hour))
	require.Equal(t, 3*time.Hour, server.TTL(keys[0]))
	require.NoError(t, store.Complete(t.Context(), r.Claim, []byte("x"), 24*time.Hour))
	require.Equal(t, 24*time.Hour, server.TTL(keys[0]))
	server.FastForward(25 * time.Hour)
	require.Empty(t, server.Keys())
}

func TestServerThatIsDownIsAnErrorToRetry(t *testing.T) {
	server := miniredis.RunT(t)
	store := redisstore.New(client(t, server), redisstore.Config{})
	server.SetError("LOADING Redis is loading the dataset in memory")
	_, err := store.Claim(t.Context(), idempotency.ClaimRequest{Key: orderKey, Lease: time.Hour, Keep: time.Hour})
	require.ErrorContains(t, err, `redisstore: claim "charge" "order-7": LOADING`)
	require.False(t, errors.Is(err, idempotency.ErrLost))
	require.ErrorContains(t, store.Release(t.Context(), idempotency.Claim{Key: orderKey, Token: 1}), "LOADING")
	server.SetError("")
	_, err = store.Claim(t.Context(), idempotency.ClaimRequest{Key: orderKey, Lease: time.Hour, Keep: time.Hour})
	require.NoError(t, err)
	require.ErrorContains(t, redisstore.New(nil, redisstore.Config{}).Renew(t.Context(), idempotency.Claim{}, 0), "the client is nil")
}
