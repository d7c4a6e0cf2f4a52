package outboxcrash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/faultdb"
)

// effects is what a consumer has done to its database: the rows of a business
// table, the events that it published, and how many marks there are.
type effects struct{ Rows, Published, Marks []string }

// A consumer that fails or dies at any statement, and gets every event again
// until it acknowledges it, has each effect once.
func TestOnceThatFailsAnywhereHasEachEffectOnce(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		visit(t, p.quick(), func(g *trigger) (effects, error) {
			return p.consume(g, func(c *consumer) error {
				for _, id := range []string{"e1", "e2", "e1", "e3", "e3"} {
					if err := c.deliver([]string{id}, c.once); err != nil {
						return err
					}
				}
				return nil
			})
		})
	})
}

// The same for events that are handled in one transaction, one of which fails at
// first.
func TestOnceBatchThatFailsAnywhereHasEachEffectOnce(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		visit(t, p.quick(), func(g *trigger) (effects, error) {
			return p.consume(g, func(c *consumer) error {
				c.bad = "e2"
				if err := c.deliver([]string{"e1", "e2", "e3"}, c.batch); err != nil {
					return err
				}
				return c.deliver([]string{"e3", "e4", "e4"}, c.batch)
			})
		})
	})
}

// consumer handles what a broker delivers.
type consumer struct {
	*run
	p   *faultdb.Process
	in  *idempotency.Inbox
	bad string // the event that fails when it is handled for the first time
}

func (p *place) consume(g *trigger, play func(c *consumer) error) (e effects, err error) {
	r, over, err := p.newRun(g)
	if err != nil {
		return e, err
	}
	defer over()
	ctx := context.Background()
	if err := r.box(r.db).Migrate(ctx); err != nil {
		return e, err
	}
	if err := idempotency.NewInbox(r.db, r.dialect, idempotency.Table(r.prefix+"_inbox")).Migrate(ctx); err != nil {
		return e, err
	}
	if err := r.exec("CREATE TABLE " + r.prefix + "_effects (event VARCHAR(20) NOT NULL)"); err != nil {
		return e, err
	}
	c := &consumer{run: r}
	if err := c.restart(); err != nil {
		return e, err
	}
	defer func() { err = closing(err, c.p) }()
	if err := play(c); err != nil {
		return e, err
	}
	for query, into := range map[string]*[]string{
		"SELECT event FROM " + r.prefix + "_effects ORDER BY event": &e.Rows,
		"SELECT id FROM " + r.prefix + "_box ORDER BY id":           &e.Published,
		"SELECT count(*) FROM " + r.prefix + "_inbox":               &e.Marks,
	} {
		if *into, err = r.strings(query); err != nil {
			return e, err
		}
	}
	return e, nil
}

func (r *run) inbox(db *sql.DB) *idempotency.Inbox {
	return idempotency.NewInbox(db, r.dialect, idempotency.Table(r.prefix+"_inbox"), idempotency.Logger(discard))
}

func (c *consumer) restart() (err error) {
	if c.p != nil {
		if err := c.p.Close(); err != nil {
			return err
		}
	}
	c.p, err = c.process()
	if err == nil {
		c.in = c.inbox(c.p.DB())
	}
	return err
}

// deliver hands events over until all are acknowledged.
func (c *consumer) deliver(ids []string, handle func(ctx context.Context, events []eventbus.Event[string]) []error) error {
	deadline := time.Now().Add(patience)
	for attempt := 1; len(ids) > 0; attempt++ {
		var events []eventbus.Event[string]
		for _, id := range ids {
			events = append(events, eventbus.Event[string]{
				Attributes: eventbus.Attributes{ID: id, Source: "shop"},
				Delivery:   eventbus.Delivery{Topic: "t", Group: "billing", Attempt: attempt},
				Data:       id,
			})
		}
		errs := handle(context.Background(), events)
		var again []string
		for i, err := range errs {
			if err != nil {
				again = append(again, ids[i])
			}
		}
		ids = again
		select {
		case <-c.p.Dead():
			if err := c.restart(); err != nil {
				return err
			}
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %w", errStuck, errors.Join(errs...))
		}
	}
	return nil
}

// effect writes a row and publishes an event.
func (c *consumer) effect(_ context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
	if e.ID == c.bad {
		c.bad = ""
		return errors.New("not at the first time")
	}
	if _, err := tx.Exec(c.dialect.Rebind("INSERT INTO "+c.prefix+"_effects (event) VALUES (?)"), e.ID); err != nil {
		return err
	}
	return c.box(c.p.DB()).In(tx).Publish("done", event("done-"+e.ID, e.ID))
}

func (c *consumer) once(ctx context.Context, events []eventbus.Event[string]) []error {
	return []error{idempotency.Once(c.in, c.effect)(ctx, events[0])}
}

func (c *consumer) batch(ctx context.Context, events []eventbus.Event[string]) []error {
	err := idempotency.OnceBatch(c.in, c.effect)(ctx, events)
	var partial *idempotency.BatchError
	if errors.As(err, &partial) {
		return partial.Errs
	}
	errs := make([]error, len(events))
	for i := range errs {
		errs[i] = err
	}
	return errs
}
