package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
)

// customers who place orders at a time.
const customers = 8

// crowd places orders.
type crowd struct {
	shop client
	cfg  Config
	done chan struct{} // closed when all orders were placed, or a customer failed

	mu   sync.Mutex
	ids  []string
	errs []error
}

func newCrowd(shop client, cfg Config) *crowd {
	return &crowd{shop: shop, cfg: cfg, done: make(chan struct{})}
}

// place has the customers place their orders.
func (c *crowd) place(ctx context.Context) {
	defer close(c.done)
	products, err := c.shop.products(ctx, c.cfg.Patience)
	if err != nil {
		c.note("", err)
		return
	}
	var wg sync.WaitGroup
	for first := range customers {
		wg.Go(func() {
			for i := first; i < c.cfg.Orders; i += customers {
				id, err := c.shop.placeOrder(ctx, basket(c.cfg.Seed, i, products))
				if c.note(id, err); err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
}

func (c *crowd) note(id string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("place an order: %w", err))
		return
	}
	c.ids = append(c.ids, id)
}

// placedSince returns the orders placed after the first n.
func (c *crowd) placedSince(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ids[n:])
}

func (c *crowd) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.errs...)
}

// basket is what the i-th customer buys.
func basket(seed uint64, i int, products []product) newOrder {
	dice := rand.New(rand.NewPCG(seed, uint64(i)))
	name := fmt.Sprintf("customer-%d", i+1)
	o := newOrder{CustomerID: name, Email: name + "@example.com"}
	for _, p := range dice.Perm(len(products))[:min(1+dice.IntN(3), len(products))] {
		o.Lines = append(o.Lines, newLine{SKU: products[p].SKU, Quantity: 1 + dice.IntN(2)})
	}
	return o
}
