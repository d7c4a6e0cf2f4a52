package storefront

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/httpapi"
	"github.com/millrace-go/millrace/examples/ecommerce/platform"
)

const goodOrder = `{"customer_id":"ada","email":"ada@example.com","lines":[{"sku":"tin","quantity":2},{"sku":"mill","quantity":1}]}`

// openStorefront opens a storefront that sells two products. It does not run:
// what it publishes stays in its outbox.
func openStorefront(t *testing.T, dir string) *Service {
	t.Helper()
	bus, err := eventbus.Open(t.Context(), "memory:")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bus.Close()) })
	s, err := New(t.Context(), platform.Env{Bus: bus, Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	inTx(t, s, func(ctx context.Context, tx *sql.Tx) error {
		if err := updateProduct(ctx, tx, events.Stock{SKU: "tin", Name: "Bread tin", Price: 1490, Quantity: 5, Revision: 1, Assortment: 2}); err != nil {
			return err
		}
		return updateProduct(ctx, tx, events.Stock{SKU: "mill", Name: "Hand mill", Price: 14900, Quantity: 1, Revision: 1, Assortment: 2})
	})
	return s
}

func inTx(t *testing.T, s *Service, fn func(ctx context.Context, tx *sql.Tx) error) {
	t.Helper()
	require.NoError(t, s.box.Transact(t.Context(), fn))
}

func do(s *Service, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &v), "body: %s", w.Body)
	return v
}

func published(t *testing.T, s *Service) int64 {
	t.Helper()
	stats, err := s.box.Stats(t.Context())
	require.NoError(t, err)
	return stats.Pending
}

func TestOrderIsAcceptedPricedAndPublished(t *testing.T) {
	s := openStorefront(t, t.TempDir())
	w := do(s, "POST", "/orders", goodOrder)
	require.Equal(t, http.StatusAccepted, w.Code, w.Body)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	answer := decode[map[string]string](t, w)
	require.Equal(t, "pending", answer["status"])
	require.Len(t, answer, 2)
	require.Equal(t, "/orders/"+answer["order_id"], w.Header().Get("Location"))
	require.EqualValues(t, 1, published(t, s))

	w = do(s, "GET", "/orders/"+answer["order_id"], "")
	require.Equal(t, http.StatusOK, w.Code)
	o := decode[orderView](t, w)
	require.Equal(t, events.Pending, o.Status)
	require.EqualValues(t, 2*1490+14900, o.Total)
	require.Equal(t, []events.Line{{SKU: "tin", Name: "Bread tin", Quantity: 2, Price: 1490}, {SKU: "mill", Name: "Hand mill", Quantity: 1, Price: 14900}}, o.Lines)
	require.Len(t, o.History, 1)
	require.Equal(t, events.Pending, o.History[0].Status)
}

func TestBadOrderIsRefusedByField(t *testing.T) {
	s := openStorefront(t, t.TempDir())
	line := `[{"sku":"tin","quantity":1}]`
	order := func(customer, email, lines string) string {
		return fmt.Sprintf(`{"customer_id":%q,"email":%q,"lines":%s}`, customer, email, lines)
	}
	for _, tt := range []struct {
		name, body string
		status     int
		field      string
	}{
		{"empty body", ``, 400, "body"},
		{"no JSON", `hello`, 400, "body"},
		{"no object", `[]`, 400, "body"},
		{"two objects", goodOrder + goodOrder, 400, "body"},
		{"cut off", goodOrder[:40], 400, "body"},
		{"unknown field", `{"customer":"ada"}`, 400, "customer"},
		{"unknown field of a line", order("ada", "ada@example.com", `[{"sku":"tin","quantity":1,"price":1}]`), 400, "price"},
		{"wrong type", `{"customer_id":7}`, 400, "customer_id"},
		{"no customer", order("", "ada@example.com", line), 400, "customer_id"},
		{"blank customer", order("  ", "ada@example.com", line), 400, "customer_id"},
		{"long customer", order(strings.Repeat("a", 101), "ada@example.com", line), 400, "customer_id"},
		{"control character", order("a\nb", "ada@example.com", line), 400, "customer_id"},
		{"no email", order("ada", "", line), 400, "email"},
		{"bad email", order("ada", "ada", line), 400, "email"},
		{"email with a name", order("ada", "Ada <ada@example.com>", line), 400, "email"},
		{"two emails", order("ada", "a@example.com, b@example.com", line), 400, "email"},
		{"header in email", order("ada", "ada@example.com\r\nBcc: x@example.com", line), 400, "email"},
		{"null lines", order("ada", "ada@example.com", `null`), 400, "lines"},
		{"no lines", order("ada", "ada@example.com", `[]`), 400, "lines"},
		{"too many lines", order("ada", "ada@example.com", "["+strings.Repeat(line[1:len(line)-1]+",", 100)+line[1:]), 400, "lines"},
		{"no sku", order("ada", "ada@example.com", `[{"quantity":1}]`), 400, "lines[0].sku"},
		{"unknown sku", order("ada", "ada@example.com", `[{"sku":"tin","quantity":1},{"sku":"cat","quantity":1}]`), 400, "lines[1].sku"},
		{"no quantity", order("ada", "ada@example.com", `[{"sku":"tin"}]`), 400, "lines[0].quantity"},
		{"negative quantity", order("ada", "ada@example.com", `[{"sku":"tin","quantity":-1}]`), 400, "lines[0].quantity"},
		{"large quantity", order("ada", "ada@example.com", `[{"sku":"tin","quantity":1001}]`), 400, "lines[0].quantity"},
		{"huge quantity", order("ada", "ada@example.com", `[{"sku":"tin","quantity":99999999999999999999}]`), 400, "lines.quantity"},
		{"broken quantity", order("ada", "ada@example.com", `[{"sku":"tin","quantity":1.5}]`), 400, "lines.quantity"},
		{"large body", `{"customer_id":"` + strings.Repeat("a", maxBody) + `"}`, 413, "body"},
		{"large body after the object", goodOrder + strings.Repeat(" ", maxBody), 413, "body"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := do(s, "POST", "/orders", tt.body)
			require.Equal(t, tt.status, w.Code, w.Body)
			requireProblem(t, w, tt.field)
		})
	}
	require.Zero(t, published(t, s))
	require.JSONEq(t, `[]`, do(s, "GET", "/orders", "").Body.String())
}

func requireProblem(t *testing.T, w *httptest.ResponseRecorder, field string) {
	t.Helper()
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	p := decode[httpapi.Problem](t, w)
	require.Equal(t, w.Code, p.Status)
	require.Equal(t, http.StatusText(w.Code), p.Title)
	require.NotEmpty(t, p.Detail)
	require.Equal(t, field, p.Field)
}

func TestAllBadFieldsAreNamed(t *testing.T) {
	s := openStorefront(t, t.TempDir())
	w := do(s, "POST", "/orders", `{"lines":[{"sku":"tin","quantity":0},{"quantity":1}]}`)
	var fields []string
	for _, e := range decode[httpapi.Problem](t, w).Errors {
		fields = append(fields, e.Field)
	}
	require.Equal(t, []string{"customer_id", "email", "lines[0].quantity", "lines[1].sku"}, fields)
}

func TestRequestsThatTheShopDoesNotHave(t *testing.T) {
	s := openStorefront(t, t.TempDir())
	for _, tt := range []struct {
		method, path string
		status       int
		field, allow string
	}{
		{"GET", "/orders/nobody", 404, "", ""},
		{"GET", "/nothing", 404, "", ""},
		{"POST", "/nothing", 404, "", ""},
		{"PUT", "/orders", 405, "", "GET, POST"},
		{"DELETE", "/orders/1", 405, "", "GET"},
		{"POST", "/products", 405, "", "GET"},
		{"POST", "/emails", 405, "", "GET"},
		{"POST", "/events", 405, "", "GET"},
		{"POST", "/", 405, "", "GET"},
		{"GET", "/orders?limit=0", 400, "limit", ""},
		{"GET", "/orders?limit=-1", 400, "limit", ""},
		{"GET", "/orders?limit=many", 400, "limit", ""},
		{"GET", "/orders?limit=1001", 400, "limit", ""},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			w := do(s, tt.method, tt.path, "")
			require.Equal(t, tt.status, w.Code, w.Body)
			require.Equal(t, tt.allow, w.Header().Get("Allow"))
			requireProblem(t, w, tt.field)
		})
	}
}

func TestIdempotencyKey(t *testing.T) {
	dir := t.TempDir()
	s := openStorefront(t, dir)
	first := do(s, "POST", "/orders", goodOrder, "Idempotency-Key", "k-1")
	require.Equal(t, http.StatusAccepted, first.Code, first.Body)

	t.Run("same key and body is the same answer", func(t *testing.T) {
		again := do(s, "POST", "/orders", goodOrder, "Idempotency-Key", "k-1")
		require.Equal(t, http.StatusAccepted, again.Code)
		require.Equal(t, first.Body.String(), again.Body.String())
		require.Equal(t, first.Header(), again.Header())
	})
	t.Run("white space does not make another body", func(t *testing.T) {
		var spaced bytes.Buffer
		require.NoError(t, json.Indent(&spaced, []byte(goodOrder), "", "  "))
		again := do(s, "POST", "/orders", spaced.String(), "Idempotency-Key", "k-1")
		require.Equal(t, first.Body.String(), again.Body.String())
	})
	t.Run("another body is refused", func(t *testing.T) {
		other := do(s, "POST", "/orders", strings.Replace(goodOrder, `"quantity":2`, `"quantity":3`, 1), "Idempotency-Key", "k-1")
		require.Equal(t, http.StatusUnprocessableEntity, other.Code)
		requireProblem(t, other, "Idempotency-Key")
	})
	t.Run("another key is another order", func(t *testing.T) {
		other := do(s, "POST", "/orders", goodOrder, "Idempotency-Key", "k-2")
		require.Equal(t, http.StatusAccepted, other.Code)
		require.NotEqual(t, first.Body.String(), other.Body.String())
	})
	t.Run("a refused order does not use the key up", func(t *testing.T) {
		bad := do(s, "POST", "/orders", `{}`, "Idempotency-Key", "k-3")
		require.Equal(t, http.StatusBadRequest, bad.Code)
		good := do(s, "POST", "/orders", goodOrder, "Idempotency-Key", "k-3")
		require.Equal(t, http.StatusAccepted, good.Code)
	})
	t.Run("bad keys are refused", func(t *testing.T) {
		for _, header := range [][]string{
			{"Idempotency-Key", ""}, {"Idempotency-Key", strings.Repeat("k", 101)}, {"Idempotency-Key", "a\x7f"},
			{"Idempotency-Key", "a", "Idempotency-Key", "b"},
		} {
			w := do(s, "POST", "/orders", goodOrder, header...)
			require.Equal(t, http.StatusBadRequest, w.Code)
			requireProblem(t, w, "Idempotency-Key")
		}
	})
	t.Run("it outlives a restart", func(t *testing.T) {
		again := do(openStorefront(t, dir), "POST", "/orders", goodOrder, "Idempotency-Key", "k-1")
		require.Equal(t, first.Body.String(), again.Body.String())
	})
	require.EqualValues(t, 3, published(t, s))
}

func TestConcurrentRequestsWithOneKeyAreOneOrder(t *testing.T) {
	s := openStorefront(t, t.TempDir())
	answers := make([]string, 20)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = do(s, "POST", "/orders", goodOrder, "Idempotency-Key", "k").Body.String() })
	}
	wg.Wait()
	for _, a := range answers {
		require.Equal(t, answers[0], a)
	}
	require.Contains(t, answers[0], `"status":"pending"`)
	require.EqualValues(t, 1, published(t, s))
}

func TestOrdersAreListedNewestFirst(t *testing.T) {
	s := openStorefront(t, t.TempDir())
	var ids []string
	for range 3 {
		ids = append(ids, decode[map[string]string](t, do(s, "POST", "/orders", goodOrder))["order_id"])
	}
	all := decode[[]orderView](t, do(s, "GET", "/orders", ""))
	require.Equal(t, []string{ids[2], ids[1], ids[0]}, []string{all[0].ID, all[1].ID, all[2].ID})
	require.Len(t, decode[[]orderView](t, do(s, "GET", "/orders?limit=2", "")), 2)
}
