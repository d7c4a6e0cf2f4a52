package outboxcrash

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/faultdb"
)

// A caller with a leased store that fails or dies at any statement, or at the
// effect, and calls again until it gets a result, gets the one result. The
// effect may happen again, for it is not in the database; then it is told so, by
// an attempt above 1 and a higher token, with which the other side recognises
// it.
func TestLeasedStoreThatFailsAnywhereGivesOneResult(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		visit(t, p.quick(), func(g *trigger) ([]string, error) { return p.charge(g) })
	})
}

// gateway is where the effects of a caller happen. It does each operation once,
// however often it is told.
type gateway struct {
	done map[string]string            // what was answered
	last map[string]idempotency.Claim // the latest claims
	err  error
}

func (g *gateway) charge(c idempotency.Claim) string {
	id := c.Key.ID
	if last, ok := g.last[id]; ok && (c.Attempt <= last.Attempt || c.Token <= last.Token) {
		g.err = errors.Join(g.err, fmt.Errorf("%+v comes after %+v", c, last))
	}
	g.last[id] = c
	if g.done[id] == "" {
		g.done[id] = fmt.Sprintf("receipt %d for %s", len(g.done)+1, id)
	}
	return g.done[id]
}

// caller is a program that charges by way of the gateway.
type caller struct {
	*run
	gateway *gateway
	p       *faultdb.Process
	guard   *idempotency.Guard
}

func (p *place) charge(g *trigger) (results []string, err error) {
	r, over, err := p.newRun(g)
	if err != nil {
		return nil, err
	}
	defer over()
	table := idempotency.SQLConfig{Table: r.prefix + "_leases", Logger: discard}
	if err := idempotency.NewSQLStore(r.db, r.dialect, table).Migrate(context.Background()); err != nil {
		return nil, err
	}
	c := &caller{run: r, gateway: &gateway{done: map[string]string{}, last: map[string]idempotency.Claim{}}}
	if err := c.restart(); err != nil {
		return nil, err
	}
	defer func() { err = closing(err, c.p) }()
	for _, id := range []string{"one", "two", "one", "two", "three"} {
		receipt, err := c.call(id)
		if err != nil {
			return nil, err
		}
		results = append(results, receipt)
	}
	if len(c.gateway.done) != 3 {
		c.gateway.err = fmt.Errorf("the gateway knows %v", c.gateway.done)
	}
	return results, c.gateway.err
}

func (c *caller) restart() (err error) {
	if c.p != nil {
		if err := c.p.Close(); err != nil {
			return err
		}
	}
	if c.p, err = c.process(); err != nil {
		return err
	}
	store := idempotency.NewSQLStore(c.p.DB(), c.dialect, idempotency.SQLConfig{Table: c.prefix + "_leases", Logger: discard})
	c.guard = idempotency.NewGuard(store, idempotency.Policy{Lease: 300 * time.Millisecond, Logger: discard})
	return nil
}

// call asks until there is a result.
func (c *caller) call(id string) (string, error) {
	deadline := time.Now().Add(patience)
	key := idempotency.Key{Scope: "charges", ID: id}
	for {
		receipt, _, err := idempotency.Do(context.Background(), c.guard, key, func(_ context.Context, claim idempotency.Claim) (receipt string, err error) {
			err = c.p.Do("effect", func() error {
				receipt = c.gateway.charge(claim)
				return nil
			})
			return receipt, err
		})
		select {
		case <-c.p.Dead():
			if err := c.restart(); err != nil {
				return "", err
			}
			continue
		default:
		}
		if err == nil {
			return receipt, nil
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("%w: %w", errStuck, err)
		}
	}
}
