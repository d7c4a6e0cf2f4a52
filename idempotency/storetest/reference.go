package storetest

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/millrace-go/millrace/idempotency"
)

// twin is one claim in the store and in the reference.
type twin struct{ here, there idempotency.Claim }

// likeReference makes random calls to the store and to a MemoryStore.
func likeReference(s *suite) {
	seed := uint64(time.Now().UnixNano())
	s.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	store, reference := s.open(), idempotency.NewMemoryStore(idempotency.MemoryConfig{})
	ids := []string{"a", "b", "c"}
	claims := []twin{{idempotency.Claim{Key: key("a"), Token: 1}, idempotency.Claim{Key: key("a"), Token: 1}}}
	for step := range 250 {
		q := request(ids[random.IntN(len(ids))], long)
		q.Fingerprint = [][]byte{nil, []byte("x"), []byte("y")}[random.IntN(3)]
		q.Existing = random.IntN(3) == 0
		c := claims[len(claims)-1-random.IntN(min(4, len(claims)))]
		switch operation := random.IntN(6); operation {
		case 0: // completed keys stay so: bring in a new one
			ids = append(ids[1:], ids[2]+"'")
		case 1, 2:
			claims = append(claims, s.claimBoth(step, store, reference, q)...)
		case 3:
			s.same(step, "Renew", store.Renew(s.Context(), c.here, long), reference.Renew(s.Context(), c.there, long))
		case 4:
			s.same(step, "Release", store.Release(s.Context(), c.here), reference.Release(s.Context(), c.there))
		case 5:
			result := []byte{byte(step)}
			s.same(step, "Complete", store.Complete(s.Context(), c.here, result, long), reference.Complete(s.Context(), c.there, result, long))
		}
	}
}

// claimBoth returns the claims, if they succeeded.
func (s *suite) claimBoth(step int, store, reference idempotency.Store, q idempotency.ClaimRequest) []twin {
	here, err := store.Claim(s.Context(), q)
	s.ok(err)
	there, err := reference.Claim(s.Context(), q)
	s.ok(err)
	switch {
	case here.State != there.State || here.Claim.Attempt != there.Claim.Attempt || string(here.Result) != string(there.Result):
		s.broken("step %d, Claim %s: %v attempt %d with result %x, the reference says %v attempt %d with %x", step, q.Key,
			here.State, here.Claim.Attempt, here.Result, there.State, there.Claim.Attempt, there.Result)
	case here.State == idempotency.StateClaimed:
		return []twin{{here.Claim, there.Claim}}
	}
	return nil
}

func (s *suite) same(step int, operation string, here, there error) {
	if (here == nil) != (there == nil) || errors.Is(here, idempotency.ErrLost) != errors.Is(there, idempotency.ErrLost) {
		s.broken("step %d, %s: %v, the reference says %v", step, operation, here, there)
	}
}
