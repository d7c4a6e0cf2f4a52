package idempotency_test

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/idempotency"
)

// probe is a store that counts, and that fails where a test says so.
type probe struct {
	idempotency.Store
	claims, renewals, completions, releases atomic.Int32
	// Set before use, or by what the functions close over.
	onClaim, onRenew, onComplete, onRelease func() error
}

func newProbe() *probe {
	return &probe{Store: idempotency.NewMemoryStore(idempotency.MemoryConfig{})}
}

func consult(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (p *probe) Claim(ctx context.Context, r idempotency.ClaimRequest) (idempotency.Record, error) {
	p.claims.Add(1)
	if err := consult(p.onClaim); err != nil {
		return idempotency.Record{}, err
	}
	return p.Store.Claim(ctx, r)
}

func (p *probe) Renew(ctx context.Context, c idempotency.Claim, lease time.Duration) error {
	p.renewals.Add(1)
	if err := consult(p.onRenew); err != nil {
		return err
	}
	return p.Store.Renew(ctx, c, lease)
}

func (p *probe) Complete(ctx context.Context, c idempotency.Claim, result []byte, keep time.Duration) error {
	p.completions.Add(1)
	if err := consult(p.onComplete); err != nil {
		return err
	}
	return p.Store.Complete(ctx, c, result, keep)
}

func (p *probe) Release(ctx context.Context, c idempotency.Claim) error {
	p.releases.Add(1)
	if err := consult(p.onRelease); err != nil {
		return err
	}
	return p.Store.Release(ctx, c)
}

var orderKey = idempotency.Key{Scope: "charge", ID: "order-7"}

// answer is a function for Do that returns v.
func answer[T any](v T) func(context.Context, idempotency.Claim) (T, error) {
	return func(context.Context, idempotency.Claim) (T, error) { return v, nil }
}

// must is a function for Do that must not be called.
func must(t interface{ Error(args ...any) }) func(context.Context, idempotency.Claim) (string, error) {
	return func(context.Context, idempotency.Claim) (string, error) {
		t.Error("the function was called")
		return "", nil
	}
}
