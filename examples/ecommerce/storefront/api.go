package storefront

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/millrace-go/millrace/examples/ecommerce/httpapi"
)

// Bounds of GET /orders?limit=.
const (
	defaultLimit = 50
	maxLimit     = 1000
)

// Handler serves the shop's API and its page.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/{$}", httpapi.Methods{"GET": s.page})
	mux.Handle("/orders", httpapi.Methods{"GET": s.listOrders, "POST": s.placeOrder})
	mux.Handle("/orders/{id}", httpapi.Methods{"GET": s.showOneOrder})
	mux.Handle("/products", httpapi.Methods{"GET": s.listProducts})
	mux.Handle("/emails", httpapi.Methods{"GET": s.listEmails})
	mux.Handle("/events", httpapi.Methods{"GET": s.stream})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		httpapi.WriteError(w, r, &httpapi.Problem{Status: http.StatusNotFound, Detail: "there is nothing at " + r.URL.Path})
	})
	return mux
}

// CanSell returns nil when the storefront knows all products, else why not.
func (s *Service) CanSell(ctx context.Context) error {
	missing, err := missingProducts(ctx, s.db)
	if err == nil && missing > 0 {
		err = fmt.Errorf("storefront: the warehouse has yet to announce %d products or more", missing)
	}
	return err
}

func (s *Service) listOrders(w http.ResponseWriter, r *http.Request) {
	limit := defaultLimit
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			httpapi.WriteError(w, r, httpapi.Invalid("limit", fmt.Sprintf("%q is not a number between 1 and %d", text, maxLimit)))
			return
		}
		limit = n
	}
	orders, err := newestOrders(r.Context(), s.db, limit)
	answer(w, r, orders, err)
}

func (s *Service) showOneOrder(w http.ResponseWriter, r *http.Request) {
	o, err := oneOrder(r.Context(), s.db, r.PathValue("id"))
	if errors.Is(err, sql.ErrNoRows) {
		err = &httpapi.Problem{Status: http.StatusNotFound, Detail: "there is no order " + r.PathValue("id")}
	}
	answer(w, r, o, err)
}

func (s *Service) listProducts(w http.ResponseWriter, r *http.Request) {
	products, err := allProducts(r.Context(), s.db)
	answer(w, r, products, err)
}

func (s *Service) listEmails(w http.ResponseWriter, r *http.Request) {
	emails, err := emailsOf(r.Context(), s.db, r.URL.Query().Get("order_id"))
	answer(w, r, emails, err)
}

func answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		httpapi.WriteError(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	httpapi.WriteJSON(w, http.StatusOK, "application/json", v)
}
