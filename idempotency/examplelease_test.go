package idempotency_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
)

// A charge is done once, and every repetition gets its receipt.
func ExampleDo() {
	store := idempotency.NewMemoryStore(idempotency.MemoryConfig{}) // or NewSQLStore, redisstore.New
	guard := idempotency.NewGuard(store, idempotency.Policy{})

	charge := func(ctx context.Context, c idempotency.Claim) (string, error) {
		fmt.Println("charging 42 EUR for", c.Key.ID) // passing c.Key.ID on to the bank
		return "receipt-1", nil
	}
	key := idempotency.Key{Scope: "charge", ID: "order-7"}
	for range 2 {
		receipt, replayed, err := idempotency.Do(context.Background(), guard, key, charge,
			idempotency.Fingerprint([]byte("42 EUR")))
		fmt.Println(receipt, replayed, err)
	}
	_, _, err := idempotency.Do(context.Background(), guard, key, charge, idempotency.Fingerprint([]byte("43 EUR")))
	fmt.Println(err)
	// Output:
	// charging 42 EUR for order-7
	// receipt-1 false <nil>
	// receipt-1 true <nil>
	// idempotency: "charge" "order-7": the key was used before with a different request
}

// Clients may repeat a POST with the same Idempotency-Key.
func ExampleGuard_HTTP() {
	guard := idempotency.NewGuard(idempotency.NewMemoryStore(idempotency.MemoryConfig{}), idempotency.Policy{Retention: 24 * time.Hour})
	orders := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "order 1")
	})
	server := httptest.NewServer(guard.HTTP(idempotency.HTTPConfig{
		Required: true,
		Scope:    func(r *http.Request) string { return r.Header.Get("Authorization") }, // better: the account it belongs to
	})(orders))
	defer server.Close()

	post := func(key, body string) {
		r, err := http.NewRequest(http.MethodPost, server.URL, strings.NewReader(body))
		if err != nil {
			panic(err)
		}
		r.Header.Set(idempotency.KeyHeader, key)
		resp, err := server.Client().Do(r)
		if err != nil {
			panic(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			panic(err)
		}
		if resp.StatusCode >= 400 {
			text = []byte(resp.Header.Get("Content-Type"))
		}
		fmt.Println(resp.StatusCode, string(text), resp.Header.Get(idempotency.ReplayedHeader) == "true")
	}
	post(`"k1"`, "two teapots")
	post(`"k1"`, "two teapots")
	post(`"k1"`, "three teapots")
	// Output:
	// 201 order 1 false
	// 201 order 1 true
	// 422 application/problem+json false
}

// A mail is sent once per event, although events are delivered at least once.
func ExampleLeased() {
	type OrderPlaced struct{ Customer string }
	guard := idempotency.NewGuard(idempotency.NewMemoryStore(idempotency.MemoryConfig{}), idempotency.Policy{})
	thank := idempotency.Leased(guard, func(_ context.Context, c idempotency.Claim, e eventbus.Event[OrderPlaced]) error {
		if c.Attempt > 1 {
			fmt.Println("an earlier attempt may have sent it")
		}
		fmt.Println("mail to", e.Data.Customer)
		return nil
	})
	// eventbus.Subscribe(svc, ordersPlaced, thank) would call it like this:
	e := eventbus.Event[OrderPlaced]{
		Attributes: eventbus.Attributes{ID: "e-1", Source: "shop", Time: time.Now()},
		Delivery:   eventbus.Delivery{Group: "mailer"},
		Data:       OrderPlaced{Customer: "Ada"},
	}
	fmt.Println(thank(context.Background(), e), thank(context.Background(), e))
	// Output:
	// mail to Ada
	// <nil> <nil>
}
