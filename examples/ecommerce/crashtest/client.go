package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// client speaks the shop's HTTP API.
type client struct {
	base string
	http *http.Client
}

// refusedError is an answer that trying again would not change.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

func (c client) placeOrder(ctx context.Context, key, body string) (id string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/orders", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Idempotency-Key", key)
	var answer struct {
		OrderID string `json:"order_id"`
	}
	err = c.do(req, http.StatusAccepted, &answer)
	return answer.OrderID, err
}

func (c client) status(ctx context.Context, id string) (events.Status, error) {
	var answer struct {
		Status events.Status `json:"status"`
	}
	err := c.get(ctx, "/orders/"+id, &answer)
	return answer.Status, err
}

func (c client) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	return c.do(req, http.StatusOK, into)
}

func (c client) do(req *http.Request, want int, into any) error {
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != want {
		text := fmt.Sprintf("%s %s: %s: %s", req.Method, req.URL.Path, resp.Status, bytes.TrimSpace(body))
		if resp.StatusCode < 500 {
			return &refusedError{text}
		}
		return fmt.Errorf("%s", text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}
