package sagacrash

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/saga"
)

const (
	skus           = 5
	customers      = 10
	cents          = 1_000_000 // of a customer at first
	mostOfOneOrder = 3
)

// fates are those of twenty orders in turn.
var fates = [20]Fate{declined, ordinary, slow, ordinary, late, ordinary, uninvoiced, ordinary, ordinary, declined, ordinary, slow}

// placeOrders thinks up the orders, and fills shelves and accounts. There is half
// of what is ordered of the first article, and enough of the others.
func (s *scene) placeOrders() {
	demand := map[string]int64{}
	for n := range s.sagas {
		o := Order{
			ID: fmt.Sprintf("order-%d", n), Customer: fmt.Sprintf("customer-%d", rand.N(customers)), SKU: fmt.Sprintf("sku-%d", rand.N(skus)),
			Quantity: 1 + rand.N[int64](mostOfOneOrder), Cents: 1 + rand.N[int64](1000), Fate: fates[n%len(fates)],
		}
		demand[o.SKU] += o.Quantity
		s.orders = append(s.orders, o)
	}
	for n := range skus {
		sku := fmt.Sprintf("sku-%d", n)
		quantity := demand[sku]
		if n == 0 {
			quantity /= 2
		}
		s.stocked += quantity
		s.exec(s.dbs[stock].DB, fmt.Sprintf("INSERT INTO shelves (sku, quantity) VALUES ('%s', %d)", sku, quantity))
	}
	s.exec(s.dbs[sales].DB, "INSERT INTO accounts (name, cents) VALUES ('"+ours+"', 0)")
	for n := range customers {
		s.exec(s.dbs[sales].DB, fmt.Sprintf("INSERT INTO accounts (name, cents) VALUES ('customer-%d', %d)", n, cents))
	}
}

// openShop runs the shop's relay, and a reader of what nobody should have written.
func (s *scene) openShop(url string) {
	bus, err := eventbus.Open(s.t.Context(), url)
	require.NoError(s.t, err)
	s.bus = bus
	svc := eventbus.NewService(shop, bus, eventbus.Defaults(eventbus.Concurrency(1)))
	for topic, group := range readers {
		if group == shop {
			svc.Handle(topic, s.letters.take)
		}
	}
	svc.Add(outbox.New(s.dbs[shop].DB, outbox.Postgres).Relay(bus))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		require.NoError(s.t, <-ended)
		require.NoError(s.t, bus.Close())
	})
	select {
	case <-svc.Ready():
	case err := <-ended:
		ended <- err
		s.t.Fatal(err)
	}
}

// placeAndAwait keeps so many orders in flight until all instances have ended.
func (s *scene) placeAndAwait() {
	s.t.Helper()
	placed, last, since := 0, int64(0), time.Now()
	for {
		ended, transitions := s.progress()
		switch {
		case ended == len(s.orders):
			return
		case transitions > last:
			last, since = transitions, time.Now()
		case time.Since(since) > patience:
			s.t.Fatalf("%d of %d instances have ended, and nothing has happened for %v: %s\n%s", ended, len(s.orders), patience, s.unfinished(), s.crew.logs())
		}
		for ; placed < len(s.orders) && placed-ended < s.inFlight; placed++ {
			s.place(s.orders[placed])
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (s *scene) progress() (ended int, transitions int64) {
	s.t.Helper()
	require.NoError(s.t, s.dbs[orders].QueryRow("SELECT count(*) FILTER (WHERE status IN ($1, $2)), coalesce(sum(revision), 0) FROM millrace_saga",
		string(saga.Completed), string(saga.Compensated)).Scan(&ended, &transitions))
	return ended, transitions
}

func (s *scene) unfinished() string {
	all, err := s.store.List(s.t.Context(), saga.Query{Saga: "fulfilment", Status: []saga.Status{saga.Running, saga.Compensating, saga.Stuck}, Limit: 10})
	var b strings.Builder
	for _, i := range all {
		fmt.Fprintf(&b, "\n%s: %s at revision %d, %s, %s, wakes at %v", i.ID, i.Status, i.Revision, i.Error, i.Progress, i.Wake)
	}
	return fmt.Sprint(b.String(), err)
}

// place says it twice now and then.
func (s *scene) place(o Order) {
	s.t.Helper()
	box := outbox.New(s.dbs[shop].DB, outbox.Postgres)
	require.NoError(s.t, box.Transact(s.t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		err := ordersPlaced.Publish(ctx, box.In(tx), o)
		if err == nil && rand.N(10) == 0 {
			err = ordersPlaced.Publish(ctx, box.In(tx), o)
		}
		return err
	}))
}

// letters are what nobody should have written, and the fences behind it.
type letters struct {
	mu     sync.Mutex
	got    []string
	fences map[string]bool
}

const fence = "fence-"

func (l *letters) take(m *message.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if strings.HasPrefix(m.UUID, fence) {
		if l.fences == nil {
			l.fences = map[string]bool{}
		}
		l.fences[m.UUID] = true
	} else {
		l.got = append(l.got, fmt.Sprintf("%s %s", m.Payload, m.Metadata))
	}
	return nil
}

// fences publishes behind the last letters, in every partition, and waits.
func (s *scene) fences() {
	s.t.Helper()
	n := 0
	for topic, group := range readers {
		if group != shop {
			continue
		}
		for key := range 64 {
			m := message.NewMessage(fence+uuid.NewString(), []byte("{}"))
			m.Metadata.Set(driver.MetadataKey, fmt.Sprint(key))
			require.NoError(s.t, s.bus.Publish(topic, m))
			n++
		}
	}
	require.Eventually(s.t, func() bool {
		s.letters.mu.Lock()
		defer s.letters.mu.Unlock()
		return len(s.letters.fences) == n
	}, patience, 20*time.Millisecond)
	require.Empty(s.t, s.letters.got)
}
