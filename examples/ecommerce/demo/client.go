package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/audit"
	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// client speaks the shop's HTTP API.
type client struct {
	base string
	http *http.Client
}

func newClient(base string) client {
	t := &http.Transport{MaxIdleConnsPerHost: customers}
	return client{base: base, http: &http.Client{Transport: t, Timeout: time.Minute}}
}

// close closes the connections, so that the server need not wait for them when
// it stops.
func (c client) close() { c.http.CloseIdleConnections() }

type newOrder struct {
	CustomerID string    `json:"customer_id"`
	Email      string    `json:"email"`
	Lines      []newLine `json:"lines"`
}

type newLine struct {
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

type product struct {
	SKU string `json:"sku"`
}

type order struct {
	events.Order
	Status  events.Status   `json:"status"`
	Reason  string          `json:"reason"`
	History []events.Change `json:"history"`
}

type sentEmail struct {
	Status  events.Status `json:"status"`
	Subject string        `json:"subject"`
}

// placeOrder places an order; tries after a failure have the same key, so they
// are the same order.
func (c client) placeOrder(ctx context.Context, o newOrder) (string, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	key := eventbus.NewID()
	var answer struct {
		OrderID string `json:"order_id"`
	}
	for try := 1; ; try++ {
		err = c.do(ctx, http.MethodPost, "/orders", key, body, http.StatusAccepted, &answer)
		if err == nil || try == 3 || ctx.Err() != nil {
			return answer.OrderID, err
		}
	}
}

// products waits until the shop is ready to sell them.
func (c client) products(ctx context.Context, patience time.Duration) (found []product, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err = c.do(ctx, http.MethodGet, "/readyz", "", nil, http.StatusOK, nil); err == nil {
			err = c.get(ctx, "/products", &found)
			return found, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("the shop is not ready after %v; do all services run? %w", patience, err)
		}
	}
}

// newest returns the newest orders by their ids, n of them or the API's limit.
func (c client) newest(ctx context.Context, n int) (map[string]order, error) {
	var list []order
	if err := c.get(ctx, fmt.Sprintf("/orders?limit=%d", max(1, min(n, 1000))), &list); err != nil {
		return nil, err
	}
	byID := map[string]order{}
	for _, o := range list {
		byID[o.ID] = o
	}
	return byID, nil
}

func (c client) order(ctx context.Context, id string) (o order, err error) {
	err = c.get(ctx, "/orders/"+url.PathEscape(id), &o)
	return o, err
}

func (c client) emails(ctx context.Context, orderID string) (sent []sentEmail, err error) {
	err = c.get(ctx, "/emails?order_id="+url.QueryEscape(orderID), &sent)
	return sent, err
}

func (c client) audit(ctx context.Context) (r audit.Report, err error) {
	err = c.get(ctx, "/audit", &r)
	return r, err
}

func (c client) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, "", nil, http.StatusOK, into)
}

func (c client) do(ctx context.Context, method, path, key string, body []byte, want int, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode != want {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(data))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
