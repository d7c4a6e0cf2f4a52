package storetest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/storetest"
)

// mutant is the memory store with one promise broken, and without Prune.
type mutant struct {
	idempotency.Store
	claim    func(s idempotency.Store, q idempotency.ClaimRequest) (idempotency.Record, error)
	renew    func(s idempotency.Store, c idempotency.Claim, lease time.Duration) error
	complete func(s idempotency.Store, c idempotency.Claim, result []byte, keep time.Duration) error
	release  func(s idempotency.Store, c idempotency.Claim) error
}

func (m mutant) Claim(ctx context.Context, q idempotency.ClaimRequest) (idempotency.Record, error) {
	if m.claim != nil {
		return m.claim(m.Store, q)
	}
	return m.Store.Claim(ctx, q)
}

func (m mutant) Renew(ctx context.Context, c idempotency.Claim, lease time.Duration) error {
	if m.renew != nil {
		return m.renew(m.Store, c, lease)
	}
	return m.Store.Renew(ctx, c, lease)
}

func (m mutant) Complete(ctx context.Context, c idempotency.Claim, result []byte, keep time.Duration) error {
	if m.complete != nil {
		return m.complete(m.Store, c, result, keep)
	}
	return m.Store.Complete(ctx, c, result, keep)
}

func (m mutant) Release(ctx context.Context, c idempotency.Claim) error {
	if m.release != nil {
		return m.release(m.Store, c)
	}
	return m.Store.Release(ctx, c)
}

var ctx = context.Background()

// changed is a mutant that changes what is asked for.
func changed(change func(q *idempotency.ClaimRequest)) mutant {
	return mutant{claim: func(s idempotency.Store, q idempotency.ClaimRequest) (idempotency.Record, error) {
		change(&q)
		return s.Claim(ctx, q)
	}}
}

// answered is a mutant that changes the answer.
func answered(change func(r *idempotency.Record)) mutant {
	return mutant{claim: func(s idempotency.Store, q idempotency.ClaimRequest) (idempotency.Record, error) {
		r, err := s.Claim(ctx, q)
		change(&r)
		return r, err
	}}
}

// latest finds the token that is valid now, as a store without fencing would.
var latest = map[idempotency.Key]idempotency.Claim{}

func unfenced() mutant {
	return mutant{
		claim: func(s idempotency.Store, q idempotency.ClaimRequest) (idempotency.Record, error) {
			r, err := s.Claim(ctx, q)
			if r.State == idempotency.StateClaimed {
				latest[q.Key] = r.Claim
			}
			return r, err
		},
		complete: func(s idempotency.Store, c idempotency.Claim, result []byte, keep time.Duration) error {
			if now, ok := latest[c.Key]; ok {
				c = now
			}
			return s.Complete(ctx, c, result, keep)
		},
	}
}

// mutants names, for each broken promise, a row that must notice.
var mutants = map[string]struct {
	row    string
	broken mutant
}{
	"has no fencing":       {"claims_without_a_fencing_token", unfenced()},
	"gives one key to all": {"one_holder", answered(func(r *idempotency.Record) { r.State, r.Claim.Token, r.Claim.Attempt = idempotency.StateClaimed, 1, 1 })},
	"has tokens that stay": {"token_rises", answered(func(r *idempotency.Record) { r.Claim.Token = min(r.Claim.Token, 1) })},
	"counts no attempts":   {"release", answered(func(r *idempotency.Record) { r.Claim.Attempt = min(r.Claim.Attempt, 1) })},
	"ignores fingerprints": {"fingerprint", changed(func(q *idempotency.ClaimRequest) { q.Fingerprint = nil })},
	"claims anything":      {"existing_only", changed(func(q *idempotency.ClaimRequest) { q.Existing = false })},
	"keeps for ever": {"forgotten", mutant{complete: func(s idempotency.Store, c idempotency.Claim, b []byte, _ time.Duration) error {
		return s.Complete(ctx, c, b, 1000*time.Hour)
	}}},
	"forgets at once": {"claim_renew_complete", mutant{complete: func(s idempotency.Store, c idempotency.Claim, b []byte, _ time.Duration) error {
		return s.Complete(ctx, c, b, time.Nanosecond)
	}}},
	"has shorter leases": {"lease_ends", changed(func(q *idempotency.ClaimRequest) { q.Lease = max(q.Lease/2, time.Millisecond) })},
	"does not renew":     {"renewed_lease", mutant{renew: func(idempotency.Store, idempotency.Claim, time.Duration) error { return nil }}},
	"does not release":   {"release", mutant{release: func(idempotency.Store, idempotency.Claim) error { return nil }}},
	"folds case":         {"any_key", changed(func(q *idempotency.ClaimRequest) { q.Key.ID = strings.ToLower(q.Key.ID) })},
	"cuts ids":           {"any_key", changed(func(q *idempotency.ClaimRequest) { q.Key.ID = q.Key.ID[:min(len(q.Key.ID), 255)] })},
	"loses results": {"any_result", mutant{complete: func(s idempotency.Store, c idempotency.Claim, b []byte, k time.Duration) error {
		return s.Complete(ctx, c, b[:min(len(b), 1000)], k)
	}}},
	"has no limits":         {"bad_requests", changed(func(q *idempotency.ClaimRequest) { q.Fingerprint = q.Fingerprint[:min(len(q.Fingerprint), 64)] })},
	"goes on after the end": {"context", changed(func(*idempotency.ClaimRequest) {})},
	"completes once only": {"repeated_calls", mutant{release: func(s idempotency.Store, c idempotency.Claim) error {
		if err := s.Renew(ctx, c, time.Hour); err != nil {
			return err
		}
		return s.Release(ctx, c)
	}}},
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mutantEnv = "MILLRACE_STORETEST_MUTANT"

// TestMutant is the process in which a mutant fails the suite.
func TestMutant(t *testing.T) {
	name := os.Getenv(mutantEnv)
	if name == "" {
		t.Skip("this is a process of another test")
	}
	storetest.Run(t, func(*testing.T) func() idempotency.Store {
		m := mutants[name].broken
		m.Store = idempotency.NewMemoryStore(idempotency.MemoryConfig{})
		return func() idempotency.Store { return m }
	})
}

// The suite notices every broken promise, in the row about it, and says the rule.
func TestTheSuiteNoticesBrokenStores(t *testing.T) {
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			child := exec.Command(os.Args[0], "-test.run", "^TestMutant$/^"+m.row+"$")
			child.Env = append(os.Environ(), mutantEnv+"="+name)
			out, err := child.CombinedOutput()
			require.Error(t, err, string(out))
			require.Contains(t, string(out), "rule: ", string(out))
			require.Contains(t, string(out), "--- FAIL: TestMutant/"+m.row)
		})
	}
}
