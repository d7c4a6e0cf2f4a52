package storefront

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/httpapi"
)

// placeOrder accepts an order. Its answer is sent after the order, its event and
// its idempotency key were committed together.
func (s *Service) placeOrder(w http.ResponseWriter, r *http.Request) {
	key, err := idempotencyKey(r)
	if err != nil {
		httpapi.WriteError(w, r, err)
		return
	}
	req, err := readRequest(w, r)
	if err != nil {
		httpapi.WriteError(w, r, err)
		return
	}
	o, fresh, err := s.accept(r.Context(), key, req)
	if err != nil {
		httpapi.WriteError(w, r, err)
		return
	}
	if fresh {
		s.live.send("order", accepted(o))
	}
	w.Header().Set("Location", "/orders/"+o.ID)
	httpapi.WriteJSON(w, http.StatusAccepted, "application/json", struct {
		OrderID string        `json:"order_id"`
		Status  events.Status `json:"status"`
	}{o.ID, events.Pending})
}

// accept stores and publishes an order, unless the key has had its order before.
func (s *Service) accept(ctx context.Context, key string, req request) (o events.Order, fresh bool, err error) {
	err = s.box.Transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if o.ID, err = replay(ctx, tx, key, req); err != nil || o.ID != "" {
			return err
		}
		if o, err = price(ctx, tx, req); err != nil {
			return err
		}
		if err := insertOrder(ctx, tx, accepted(o)); err != nil {
			return err
		}
		if err := insertKey(ctx, tx, key, req, o.ID); err != nil {
			return err
		}
		fresh = true
		return events.OrdersPlaced.Publish(ctx, s.box.In(tx), events.OrderPlaced{Order: o})
	})
	return o, fresh, err
}

// price makes an order of a request at the prices of now.
func price(ctx context.Context, tx *sql.Tx, req request) (events.Order, error) {
	products, err := allProducts(ctx, tx)
	if err != nil {
		return events.Order{}, err
	}
	known := map[string]productView{}
	for _, p := range products {
		known[p.SKU] = p
	}
	o := events.Order{ID: eventbus.NewID(), CustomerID: req.CustomerID, Email: req.Email, PlacedAt: time.Now().UTC()}
	unknown := &httpapi.Problem{Status: http.StatusBadRequest}
	for i, l := range req.Lines {
		p, ok := known[l.SKU]
		if !ok {
			unknown.Add(fmt.Sprintf("lines[%d].sku", i), fmt.Sprintf("there is no product %q", l.SKU))
		}
		o.Lines = append(o.Lines, events.Line{SKU: p.SKU, Name: p.Name, Quantity: l.Quantity, Price: p.Price})
		o.Total += p.Price * int64(l.Quantity)
	}
	return o, unknown.OrNil()
}

// idempotencyKey returns the request's key, "" if it has none.
func idempotencyKey(r *http.Request) (string, error) {
	const name = "Idempotency-Key"
	keys := r.Header.Values(name)
	if len(keys) == 0 {
		return "", nil
	}
	if len(keys) > 1 {
		return "", httpapi.Invalid(name, "the header is there more than once")
	}
	if why := badName(keys[0]); why != "" {
		return "", httpapi.Invalid(name, why)
	}
	return keys[0], nil
}

// replay returns the order that the key stands for, "" if it is new.
func replay(ctx context.Context, tx *sql.Tx, key string, req request) (orderID string, err error) {
	if key == "" {
		return "", nil
	}
	var known []byte
	err = tx.QueryRowContext(ctx, `SELECT order_id, request FROM idempotency_keys WHERE key = ?`, key).Scan(&orderID, &known)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("storefront: look up idempotency key: %w", err)
	case !bytes.Equal(known, req.hash()):
		return "", &httpapi.Problem{Status: http.StatusUnprocessableEntity, Field: "Idempotency-Key", Detail: "the key was used for another order"}
	}
	return orderID, nil
}

func insertKey(ctx context.Context, tx *sql.Tx, key string, req request, orderID string) error {
	if key == "" {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO idempotency_keys (key, request, order_id) VALUES (?, ?, ?)`, key, req.hash(), orderID); err != nil {
		return fmt.Errorf("storefront: store idempotency key: %w", err)
	}
	return nil
}
