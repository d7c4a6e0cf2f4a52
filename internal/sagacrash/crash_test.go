// Package sagacrash runs a saga with three orchestrators and two participants, of
// two processes each, on PostgreSQL and a real broker, kills any of the processes
// at random for as long as instances run, and checks that every instance ends
// completed or compensated, and that the books of the participants say so too.
//
// The short form is part of every run of the tests; MILLRACE_SAGA=full asks for
// the full one.
package sagacrash

import (
	"context"
	"database/sql"
	"log/slog"
	"math"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/saga"
)

func TestMain(m *testing.M) {
	if processMain() {
		return
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

// plan is how much happens.
type plan struct {
	sagas, inFlight int
	killEvery       time.Duration
	kills           int // at most
}

func full() bool { return os.Getenv("MILLRACE_SAGA") == "full" }

func sized() plan {
	if full() {
		return plan{sagas: 1000, inFlight: 300, killEvery: 300 * time.Millisecond, kills: math.MaxInt}
	}
	return plan{sagas: 100, inFlight: 100, killEvery: 300 * time.Millisecond, kills: 8}
}

// crewOf are the services, with how many processes.
var crewOf = map[string]int{orders: 3, stock: 2, sales: 2}

func TestKillsOnKafka(t *testing.T) { run(t, kafka) }

func TestKillsOnRabbitMQ(t *testing.T) { run(t, rabbitMQ) }

// scene is one run.
type scene struct {
	plan
	t       *testing.T
	dbs     map[string]testdb.DB // by service
	store   *saga.SQLStore
	bus     *eventbus.Bus
	orders  []Order
	stocked int64 // on all shelves at first
	crew    *crew
	letters letters
}

func run(t *testing.T, open func(t *testing.T) broker) {
	b := open(t)
	if !full() { // the short form mostly waits for the broker to notice who is gone
		t.Parallel()
	}
	s := &scene{plan: sized(), t: t, dbs: map[string]testdb.DB{}}
	t.Cleanup(func() { b.remove(t) })
	s.createAll()
	s.openShop(b.url)
	var places []place
	for _, service := range []string{orders, stock, sales} {
		places = append(places, slices.Repeat([]place{{service, s.dbs[service].DSN, b.url}}, crewOf[service])...)
	}
	s.crew = newCrew(t, places)
	began := time.Now()
	s.fulfilAll()
	ended := time.Now()
	s.settle()
	settled := time.Since(ended)
	s.fences()
	s.crew.stop()
	require.Empty(t, s.violations())
	s.report(ended.Sub(began), settled)
}

// fulfilAll places the orders and waits until their instances have ended, while
// processes are killed and the books are audited.
func (s *scene) fulfilAll() {
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	var others sync.WaitGroup
	others.Go(func() { s.crew.harass(ctx, s.killEvery, s.kills) })
	others.Go(func() { s.auditAlong(ctx) })
	defer others.Wait()
	defer cancel()
	s.placeAndAwait()
}

// patience bounds how long nothing may change.
const patience = 90 * time.Second

// settle waits until the participants have done what they were told and nothing
// is left in an outbox.
func (s *scene) settle() {
	s.t.Helper()
	for began := time.Now(); ; <-time.After(100 * time.Millisecond) {
		wrong := append(s.violations(), s.undrained()...)
		if len(wrong) == 0 {
			return
		}
		if time.Since(began) > patience {
			s.t.Fatalf("%v after all instances have ended:\n%q\n%s", patience, wrong[:min(len(wrong), 20)], s.crew.logs())
		}
	}
}

// createAll makes the databases and what is in them at first.
func (s *scene) createAll() {
	for _, service := range []string{orders, stock, sales, shop} {
		db := testdb.New(s.t, outbox.Postgres)
		s.dbs[service] = db
		ctx := s.t.Context()
		require.NoError(s.t, outbox.New(db.DB, outbox.Postgres).Migrate(ctx))
		require.NoError(s.t, newInbox(db.DB).Migrate(ctx))
		require.NoError(s.t, newBarrier(db.DB).Migrate(ctx))
	}
	db := s.dbs[orders].DB
	s.store = saga.NewSQLStore(db, saga.Postgres, outbox.New(db, outbox.Postgres), newInbox(db))
	require.NoError(s.t, s.store.Migrate(s.t.Context()))
	for service, statements := range map[string][]string{orders: ordersTables, stock: stockTables, sales: salesTables} {
		s.exec(s.dbs[service].DB, statements...)
	}
	s.placeOrders()
}

func (s *scene) exec(db *sql.DB, statements ...string) {
	s.t.Helper()
	for _, statement := range statements {
		_, err := db.Exec(statement)
		require.NoError(s.t, err, statement)
	}
}
