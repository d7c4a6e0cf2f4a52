package httpresilience_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/httpresilience"
)

func ExampleNewTransport() {
	calls := 0
	inventory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls < 3 {
			http.Error(w, "starting up", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "12 in stock")
	}))
	defer inventory.Close()

	policy := resilience.Must(resilience.NewPipeline("inventory",
		resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: 5 * time.Second})),
		resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: 3, Backoff: resilience.Backoff{Base: 10 * time.Millisecond}})),
		resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "inventory", Failures: 5})),
		resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: time.Second})),
	))
	transport, err := httpresilience.NewTransport(policy, httpresilience.TransportConfig{
		Base:      new(http.Transport),
		Propagate: func(r *http.Request) bool { return "http://"+r.URL.Host == inventory.URL },
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()

	resp, err := client.Get(inventory.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(text), err, "at request", calls)
	// Output: 200 12 in stock <nil> at request 3
}

func ExampleNewMiddleware() {
	limits := resilience.Must(resilience.NewPipeline("orders",
		resilience.Must(resilience.NewRateLimiter(resilience.RateLimiterConfig{Name: "orders", Calls: 1, Per: time.Hour})),
		resilience.Must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: "orders", Concurrency: 100})),
		resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: 5 * time.Second})),
	))
	shed, err := httpresilience.NewMiddleware(limits, httpresilience.MiddlewareConfig{Trusted: httpresilience.Always})
	if err != nil {
		log.Fatal(err)
	}
	orders := shed(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, limited := r.Context().Deadline()
		fmt.Fprintln(w, "attempts before:", resilience.PreviousAttempts(r.Context()), "limited:", limited)
	}))

	for range 2 {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/orders", nil)
		r.Header.Set(httpresilience.PreviousAttemptsHeader, "1")
		w := httptest.NewRecorder()
		orders.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("Retry-After"), w.Body)
	}
	// Output:
	// 200  attempts before: 1 limited: true
	//
	// 429 3600 {"type":"https://github.com/millrace-go/millrace/blob/main/docs/resilience.md#rate-limited","title":"There are too many requests","status":429}
}
