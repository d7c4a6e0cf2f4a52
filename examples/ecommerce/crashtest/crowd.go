package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// customers who place orders at a time.
const customers = 24

// crowd keeps a number of orders in flight. Like real customers it does not
// know when the shop is dead: a request without an answer is sent again, with
// the same key.
type crowd struct {
	shop     client
	room     chan struct{} // a place for each order in flight
	placing  context.Context
	stop     context.CancelFunc
	placers  sync.WaitGroup
	watching sync.WaitGroup

	mu      sync.Mutex
	orders  map[string]string // accepted, id by key
	pending map[string]bool   // ids of those that are not final yet
	placed  int               // begun, which numbers the keys
	repeats int
	audits  int // while orders were in flight
	failed  error
	changed time.Time // when an order was accepted or became final last
}

func newCrowd(url string, inFlight int) *crowd {
	return &crowd{
		shop:    client{base: url, http: &http.Client{Timeout: 20 * time.Second}},
		room:    make(chan struct{}, inFlight),
		orders:  map[string]string{},
		pending: map[string]bool{},
		changed: time.Now(),
	}
}

// open has the customers come once the shop is ready for the first time.
func (c *crowd) open(ctx context.Context) error {
	for began := time.Now(); ; {
		err := c.shop.get(ctx, "/readyz", nil)
		if err == nil {
			break
		}
		if time.Since(began) > patience {
			return fmt.Errorf("the shop is not ready after %v: %w", patience, err)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	c.placing, c.stop = context.WithCancel(ctx)
	for range customers {
		c.placers.Go(func() {
			for c.enter() {
				c.place(ctx, c.nextKey())
			}
		})
	}
	c.watching.Go(func() { c.watch(ctx) })
	return nil
}

// enter waits for room; false means that no more orders are wanted.
func (c *crowd) enter() bool {
	if c.placing.Err() != nil {
		return false
	}
	select {
	case c.room <- struct{}{}:
		return true
	case <-c.placing.Done():
		return false
	}
}

// stopPlacing returns when every order that was begun has its answer.
func (c *crowd) stopPlacing() {
	c.stop()
	c.placers.Wait()
}

// wait waits for all goroutines, after the context of open has ended.
func (c *crowd) wait() {
	c.placers.Wait()
	c.watching.Wait()
}

func (c *crowd) nextKey() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.placed++
	return fmt.Sprintf("key-%d", c.placed)
}

// body is the same for the same key.
func body(key string) string {
	var n uint64
	fmt.Sscanf(key, "key-%d", &n) //nolint:errcheck // made by nextKey
	dice := rand.New(rand.NewPCG(n, 0))
	skus := []string{"flour-1kg", "rye-flour-1kg", "semolina-500g", "oat-flakes-500g", "yeast-42g", "bread-tin", "hand-mill", "millstone"}
	var lines []string
	for _, i := range dice.Perm(len(skus))[:1+dice.IntN(2)] {
		lines = append(lines, fmt.Sprintf(`{"sku":%q,"quantity":%d}`, skus[i], 1+dice.IntN(2)))
	}
	return fmt.Sprintf(`{"customer_id":"customer-%d","email":"customer-%d@example.com","lines":[%s]}`, n, n, strings.Join(lines, ","))
}

// place sends an order until it is accepted.
func (c *crowd) place(ctx context.Context, key string) {
	for ctx.Err() == nil {
		id, err := c.shop.placeOrder(ctx, key, body(key))
		var refused *refusedError
		switch {
		case err == nil:
			c.accept(key, id)
			return
		case errors.As(err, &refused):
			c.fail(fmt.Errorf("order with key %s: %w", key, err))
			return
		}
		c.mu.Lock()
		c.repeats++
		c.mu.Unlock()
		if pause(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
}

func (c *crowd) accept(key, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orders[key], c.pending[id], c.changed = id, true, time.Now()
}

func (c *crowd) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = errors.Join(c.failed, err)
}

// watch looks which orders became final, makes room for new ones, and has the
// books audited while orders are in flight.
func (c *crowd) watch(ctx context.Context) {
	for pause(ctx, 100*time.Millisecond) == nil {
		err := c.look(ctx)
		if err == nil {
			err = c.auditInFlight(ctx)
		}
		var refused *refusedError
		if errors.As(err, &refused) { // all else means that the storefront is dead, look again later
			c.fail(err)
			return
		}
	}
}

// look asks for every order that is not known to be final.
func (c *crowd) look(ctx context.Context) error {
	for _, id := range c.pendingIDs() {
		status, err := c.shop.status(ctx, id)
		if err != nil {
			return fmt.Errorf("accepted order %s: %w", id, err)
		}
		if status.Final() {
			c.mu.Lock()
			delete(c.pending, id)
			c.changed = time.Now()
			c.mu.Unlock()
			<-c.room
		}
	}
	return nil
}

func (c *crowd) pendingIDs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id := range c.pending {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (c *crowd) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

func (c *crowd) accepted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.orders)
}

func (c *crowd) unfinished() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

func (c *crowd) counts() (repeats, audits int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.repeats, c.audits
}

// sinceChange is how long no order was accepted and none became final.
func (c *crowd) sinceChange() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.changed)
}

// awaitEnd waits until every accepted order is final.
func (c *crowd) awaitEnd(ctx context.Context) error {
	for c.unfinished() > 0 {
		if err := c.err(); err != nil {
			return err
		}
		if c.sinceChange() > patience {
			return fmt.Errorf("nothing changed for %v, %d accepted orders are not final: %v", patience, c.unfinished(), c.pendingIDs())
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return c.err()
}
