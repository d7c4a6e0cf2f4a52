package sqlresilience_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log"
	"time"

	_ "modernc.org/sqlite"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/sqlresilience"
)

func ExampleTransact() {
	db, err := sql.Open("sqlite", "file:example?mode=memory")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // each connection would have a memory of its own
	if _, err := db.Exec("CREATE TABLE accounts (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL CHECK (amount >= 0)); INSERT INTO accounts VALUES (1, 100), (2, 0)"); err != nil {
		log.Fatal(err)
	}
	policy := resilience.Must(resilience.NewRetry(resilience.RetryConfig{
		Attempts: 10, Backoff: resilience.Backoff{Base: 5 * time.Millisecond, Max: 500 * time.Millisecond},
	}))

	transfer := func(amount int) error {
		return sqlresilience.Transact(context.Background(), db, policy, nil, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "UPDATE accounts SET amount = amount - ? WHERE id = 1", amount); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "UPDATE accounts SET amount = amount + ? WHERE id = 2", amount)
			return err
		})
	}
	for _, amount := range []int{30, 300} {
		err := transfer(amount)
		switch {
		case err == nil:
			fmt.Println(amount, "moved")
		case errors.Is(err, sqlresilience.ErrOutcomeUnknown):
			fmt.Println(amount, "may have been moved: look before it is tried again")
		default:
			fmt.Println(amount, "not moved:", resilience.Classify(err))
		}
	}
	// Output:
	// 30 moved
	// 300 not moved: permanent
}

// conflict is what a driver's error may look like.
type conflict struct{}

func (conflict) Error() string    { return "could not serialize access due to concurrent update" }
func (conflict) SQLState() string { return "40001" }

func ExampleAsClass() {
	calls := 0
	update := func() error { // in a transaction of its own
		if calls++; calls < 3 {
			return conflict{}
		}
		return nil
	}
	policy := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Backoff{Base: time.Millisecond}}))
	err := policy.Do(context.Background(), func(context.Context) error {
		return sqlresilience.AsClass(update())
	})
	fmt.Println(calls, err)
	// Output: 3 <nil>
}

func ExampleNewConnector() {
	policy := resilience.Must(resilience.NewPipeline("database",
		resilience.Must(resilience.NewRetry(resilience.RetryConfig{Name: "connect"})),
		resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "database", Failures: 5})),
		resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{Name: "connect", After: 2 * time.Second})),
	))
	connector, err := sqlresilience.NewConnector(base(), policy)
	if err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	fmt.Println(db.Ping())
	// Output: <nil>
}

// base returns a connector, as mysql.NewConnector or stdlib.GetConnector of pgx do.
func base() driver.Connector {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	return plain{db.Driver(), ":memory:"}
}
