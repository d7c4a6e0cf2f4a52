package redisstore_test

import (
	"context"
	"fmt"
	"log"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/redisstore"
)

// Processes that share a Redis charge an order once.
func Example() {
	server, err := miniredis.Run() // stands for a real one
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()

	guard := idempotency.NewGuard(redisstore.New(client, redisstore.Config{}), idempotency.Policy{})
	for range 2 {
		receipt, replayed, err := idempotency.Do(context.Background(), guard, idempotency.Key{Scope: "charge", ID: "order-7"},
			func(context.Context, idempotency.Claim) (string, error) {
				fmt.Println("charging")
				return "receipt-1", nil
			})
		fmt.Println(receipt, replayed, err)
	}
	// Output:
	// charging
	// receipt-1 false <nil>
	// receipt-1 true <nil>
}
