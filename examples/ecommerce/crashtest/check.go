package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/audit"
)

// check has the books audited, which must know the accepted orders and no
// others, and asks again for orders whose answer may have been lost.
func (c *crowd) check(ctx context.Context) error {
	report, err := c.settled(ctx)
	if err != nil {
		return err
	}
	if n := c.accepted(); report.Accepted != n {
		return fmt.Errorf("the shop has %d orders, %d were placed", report.Accepted, n)
	}
	return c.replay(ctx)
}

// settled waits for the last e-mails.
func (c *crowd) settled(ctx context.Context) (report audit.Report, err error) {
	for began := time.Now(); ; {
		report = audit.Report{}
		err = c.shop.get(ctx, "/audit", &report)
		switch {
		case err == nil && !report.Consistent:
			for _, v := range report.Violations {
				err = errors.Join(err, errors.New(v))
			}
			return report, fmt.Errorf("the audit found violations: %w", err)
		case err == nil && report.Unsettled == 0:
			return report, nil
		case time.Since(began) > patience:
			return report, errors.Join(fmt.Errorf("%d orders are not settled after %v", report.Unsettled, patience), err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return report, err
		}
	}
}

// auditInFlight fails on a violation, which there must not be at any time.
func (c *crowd) auditInFlight(ctx context.Context) error {
	var report audit.Report
	if err := c.shop.get(ctx, "/audit", &report); err != nil {
		return err
	}
	if !report.Consistent {
		return &refusedError{fmt.Sprintf("the audit found violations while orders were in flight: %q", report.Violations)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.audits++
	return nil
}

// replay sends every request once more: each must get the answer that it had.
func (c *crowd) replay(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, want := range c.orders {
		id, err := c.shop.placeOrder(ctx, key, body(key))
		if err != nil {
			return fmt.Errorf("replay of key %s: %w", key, err)
		}
		if id != want {
			return fmt.Errorf("replay of key %s: order %s, it was order %s before", key, id, want)
		}
	}
	return nil
}
