package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/examples/ecommerce/audit"
	"github.com/millrace-go/millrace/examples/ecommerce/demo"
	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// startShop runs a shop as main does. The returned function stops it.
func startShop(t *testing.T, args ...string) (url string, stop func()) {
	t.Helper()
	cfg, err := parseFlags(append([]string{"-addr", "127.0.0.1:0"}, args...), io.Discard)
	require.NoError(t, err)
	s, err := openShop(t.Context(), cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, nil) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		http.DefaultClient.CloseIdleConnections() // the server would wait for those that were never used
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, s.close())
	}
	t.Cleanup(stop)
	await(t, func() error { return get(s.url()+"/readyz", nil) })
	return s.url(), stop
}

// await calls try until it returns nil.
func await(t *testing.T, try func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			require.NoError(t, err, "after a minute")
		}
	}
}

func get(url string, into any) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	return read(resp, http.StatusOK, into)
}

func post(url, body string) (id string, err error) {
	resp, err := http.Post(url+"/orders", "application/json", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	var answer struct {
		OrderID string `json:"order_id"`
	}
	err = read(resp, http.StatusAccepted, &answer)
	return answer.OrderID, err
}

func read(resp *http.Response, want int, into any) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != want {
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// orderAnswer, and the types below, are the HTTP contract as a client sees it.
type orderAnswer struct {
	OrderID string        `json:"order_id"`
	Status  events.Status `json:"status"`
	Reason  string        `json:"reason"`
	Total   int64         `json:"total"`
	History []struct {
		Status events.Status `json:"status"`
		At     time.Time     `json:"at"`
	} `json:"history"`
	Lines []struct {
		SKU      string `json:"sku"`
		Quantity int    `json:"quantity"`
	} `json:"lines"`
}

func (o orderAnswer) statuses() (all []events.Status) {
	for _, c := range o.History {
		all = append(all, c.Status)
	}
	return all
}

type productAnswer struct {
	SKU   string `json:"sku"`
	Name  string `json:"name"`
	Price int64  `json:"price"`
	Stock int    `json:"stock"`
}

func awaitFinal(t *testing.T, url, id string) (o orderAnswer) {
	t.Helper()
	await(t, func() error {
		o = orderAnswer{}
		if err := get(url+"/orders/"+id, &o); err != nil {
			return err
		}
		if !o.Status.Final() {
			return fmt.Errorf("order %s is %s", id, o.Status)
		}
		return nil
	})
	return o
}

func awaitSettled(t *testing.T, url string) (r audit.Report) {
	t.Helper()
	await(t, func() error {
		r = audit.Report{}
		if err := get(url+"/audit", &r); err != nil {
			return err
		}
		require.Empty(t, r.Violations)
		require.True(t, r.Consistent)
		if r.Unsettled > 0 {
			return fmt.Errorf("%d orders are not settled", r.Unsettled)
		}
		return nil
	})
	return r
}

// buses are the event buses that the whole shop is tested on; "" is the default.
var buses = []struct{ name, url string }{{"sqlite", ""}, {"memory", "memory:"}}

func TestOrderIsDelivered(t *testing.T) {
	for _, bus := range buses {
		t.Run(bus.name, func(t *testing.T) {
			url, _ := startShop(t, "-data", t.TempDir(), "-bus", bus.url)
			id, err := post(url, `{"customer_id":"ada","email":"ada@example.com","lines":[{"sku":"millstone","quantity":2},{"sku":"yeast-42g","quantity":3}]}`)
			require.NoError(t, err)
			o := awaitFinal(t, url, id)
			require.Equal(t, []events.Status{"pending", "paid", "confirmed", "dispatched", "shipped", "delivered"}, o.statuses())
			require.EqualValues(t, 2*89900+3*29, o.Total)
			require.Empty(t, o.Reason)

			r := awaitSettled(t, url)
			require.Equal(t, map[events.Status]int{"delivered": 1}, r.Orders)
			require.Equal(t, audit.Payments{Confirmed: 1, Held: o.Total}, r.Payments)
			require.Equal(t, audit.Stock{Initial: 3, Sold: 2, Stock: 1}, r.Stock["millstone"])
			require.Equal(t, audit.Emails{Sent: 6, Expected: 6}, r.Emails)

			await(t, func() error { return productHasStock(url, "millstone", 1) })
			var mails []struct {
				Status events.Status `json:"status"`
				To     string        `json:"to"`
			}
			await(t, func() error {
				if err := get(url+"/emails?order_id="+id, &mails); err != nil || len(mails) < 6 {
					return fmt.Errorf("%d e-mails: %w", len(mails), err)
				}
				return nil
			})
			for i, m := range mails {
				require.Equal(t, o.statuses()[i], m.Status)
				require.Equal(t, "ada@example.com", m.To)
			}
		})
	}
}

func productHasStock(url, sku string, want int) error {
	var products []productAnswer
	if err := get(url+"/products", &products); err != nil {
		return err
	}
	for _, p := range products {
		if p.SKU == sku && p.Stock == want {
			return nil
		}
	}
	return fmt.Errorf("%s: stock is not %d: %v", sku, want, products)
}

func TestOrderOutOfStockIsCancelledAndRefunded(t *testing.T) {
	url, _ := startShop(t, "-data", t.TempDir())
	id, err := post(url, `{"customer_id":"ada","email":"ada@example.com","lines":[{"sku":"yeast-42g","quantity":1},{"sku":"millstone","quantity":2},{"sku":"millstone","quantity":2}]}`)
	require.NoError(t, err)
	o := awaitFinal(t, url, id)
	require.Equal(t, []events.Status{"pending", "paid", "confirmed", "cancelled"}, o.statuses())
	require.Equal(t, "out of stock: millstone", o.Reason)
	r := awaitSettled(t, url)
	require.Equal(t, audit.Payments{Confirmed: 1, Refunded: 1}, r.Payments)
	require.Equal(t, audit.Stock{Initial: 25000, Stock: 25000}, r.Stock["yeast-42g"])
}

func TestDeclinedOrderIsCancelled(t *testing.T) {
	url, _ := startShop(t, "-data", t.TempDir(), "-decline", "1")
	id, err := post(url, `{"customer_id":"ada","email":"ada@example.com","lines":[{"sku":"yeast-42g","quantity":1}]}`)
	require.NoError(t, err)
	o := awaitFinal(t, url, id)
	require.Equal(t, []events.Status{"pending", "cancelled"}, o.statuses())
	require.Equal(t, "payment declined", o.Reason)
	require.Equal(t, audit.Payments{Declined: 1}, awaitSettled(t, url).Payments)
}

func TestDemoUnderFaults(t *testing.T) {
	for _, bus := range buses {
		t.Run(bus.name, func(t *testing.T) {
			url, _ := startShop(t, "-data", t.TempDir(), "-bus", bus.url, "-decline", "0.2", "-fail", "0.3", "-latency", "1ms")
			var out strings.Builder
			require.NoError(t, demo.Run(t.Context(), &out, demo.Config{URL: url, Orders: 20, Seed: 1, Patience: time.Minute}), &out)
			require.Contains(t, out.String(), "consistent: true")
		})
	}
}

// TestShopGoesOnWhereItStopped stops the shop with orders in flight and starts
// it again on the same files.
func TestShopGoesOnWhereItStopped(t *testing.T) {
	dir := t.TempDir()
	url, stop := startShop(t, "-data", dir, "-latency", "50ms")
	var ids []string
	for range 20 {
		id, err := post(url, `{"customer_id":"ada","email":"ada@example.com","lines":[{"sku":"bread-tin","quantity":1}]}`)
		require.NoError(t, err)
		ids = append(ids, id)
	}
	stop()
	url, _ = startShop(t, "-data", dir)
	for _, id := range ids {
		require.Equal(t, events.Delivered, awaitFinal(t, url, id).Status)
	}
	require.Equal(t, 20, awaitSettled(t, url).Accepted)
}

// TestServicesInSeveralProcesses runs each service in a shop of its own: they
// share nothing but the bus's file.
func TestServicesInSeveralProcesses(t *testing.T) {
	dir := t.TempDir()
	var stops []func()
	for _, name := range allServices {
		if name != "storefront" {
			url, stop := startShop(t, "-data", dir, "-services", name)
			stops = append(stops, stop)
			require.Error(t, get(url+"/products", nil), "only the storefront sells")
			require.NoError(t, get(url+"/healthz", nil))
		}
	}
	url, stop := startShop(t, "-data", dir, "-services", "storefront")
	var out strings.Builder
	require.NoError(t, demo.Run(t.Context(), &out, demo.Config{URL: url, Orders: 20, Seed: 1, Patience: time.Minute}), &out)
	stop()
	for _, stop := range stops {
		stop()
	}
}

func TestAuditOfAShopThatNeverOpened(t *testing.T) {
	r, err := audit.Run(t.Context(), t.TempDir())
	require.NoError(t, err)
	require.True(t, r.Consistent)
	require.Zero(t, r.Accepted)
}

func TestShopThatCannotOpenSaysWhy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-data", file}, "-data: mkdir " + file + ": not a directory"},
		{[]string{"-data", t.TempDir(), "-bus", "carrier-pigeon:"}, `-bus: eventbus: open carrier-pigeon:`},
		{[]string{"-data", t.TempDir(), "-addr", "256.0.0.1:1"}, "-addr: listen tcp"},
	} {
		cfg, err := parseFlags(append([]string{"-addr", "127.0.0.1:0"}, tt.args...), io.Discard)
		require.NoError(t, err)
		_, err = openShop(t.Context(), cfg)
		require.ErrorContains(t, err, tt.want)
	}
}
