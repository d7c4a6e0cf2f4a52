package eventbustest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Backend is one empty broker for one row of the suite.
type Backend struct {
	// Open returns another connection to the broker, as another process would
	// have. A driver without connections may return the same value each time.
	Open func() (driver.Broker, error)

	// URL opens another connection in another process. Empty where there is no
	// such thing.
	URL string

	// OpenUnprovisioned is Open for a broker that may create nothing. Nil where
	// topics and groups are not something that has to be created.
	OpenUnprovisioned func() (driver.Broker, error)

	// Remove, if set, is called for each topic that the row may have created, with
	// the groups it may have, after everything was closed.
	Remove func(topic string, groups []string)
}

// Run checks that a driver keeps the promises of package driver. newBackend is
// called once per row, and what it sets up should end with t.Cleanup. Backends may
// share a server: each row has names of its own. Rows about a capability that
// the driver does not declare check that it is refused, or are skipped by name.
//
// The rows run in a fixed order under stable names, so a failing one can be
// run alone: go test -run 'TestConformance/key_order'. A failure prints the
// rule that was broken.
//
// Where a Backend has a URL, one row runs the test binary again, as another
// process, and kills it.
func Run(t *testing.T, newBackend func(t *testing.T) Backend) {
	if order := os.Getenv(victimVariable); order != "" {
		beVictim(t, order)
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			s := &suite{T: t, why: r.why, backend: newBackend(t), names: newNamespace()}
			defer s.remove()
			defer s.noGoroutineLeft(runtime.NumGoroutine()) // more than the backend has
			defer s.close()
			r.run(s)
		})
	}
}

// row is one rule of the suite.
type row struct {
	name string
	why  string
	run  func(*suite)
}

// patience bounds every wait of the suite; it is long because a wait ends as
// soon as its condition holds.
var patience = 30 * time.Second

// suite is the state of one row.
type suite struct {
	*testing.T
	why     string
	backend Backend
	names   *namespace

	mu      sync.Mutex
	brokers []driver.Broker
	stops   []func()
}

func (s *suite) broken(format string, args ...any) {
	s.Helper()
	s.Fatalf("%s\nrule: %s", fmt.Sprintf(format, args...), s.why)
}

func (s *suite) must(err error, doing string) {
	s.Helper()
	if err != nil {
		s.broken("%s: unexpected error: %v", doing, err)
	}
}

func (s *suite) open() driver.Broker {
	s.Helper()
	return s.openBy(s.backend.Open)
}

func (s *suite) openBy(open func() (driver.Broker, error)) driver.Broker {
	s.Helper()
	opened, err := open()
	s.must(err, "open")
	b := &within{opened, s.names}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.brokers = append(s.brokers, b)
	return b
}

// remove leaves nothing of the row behind on a shared server.
func (s *suite) remove() {
	if s.backend.Remove == nil {
		return
	}
	for topic, groups := range s.names.topics {
		s.backend.Remove(topic, groups)
	}
}

// close stops what the row started, consumers before connections.
func (s *suite) close() {
	s.mu.Lock()
	stops, brokers := s.stops, s.brokers
	s.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	for _, b := range brokers {
		if err := b.Close(); err != nil {
			s.Errorf("close: %v", err)
		}
	}
}

func (s *suite) noGoroutineLeft(before int) {
	if s.Failed() {
		return
	}
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			s.Errorf("%d goroutines more than before\nrule: whoever starts a goroutine waits for it\n%s",
				runtime.NumGoroutine()-before, stacks[:runtime.Stack(stacks, true)])
			return
		}
		<-time.After(time.Millisecond)
	}
}

// event returns a message with a readable id.
func event(id, key, payload string) *message.Message {
	m := message.NewMessage(id, []byte(payload))
	if key != "" {
		m.Metadata[driver.MetadataKey] = key
	}
	return m
}

func (s *suite) publish(b driver.Broker, topic string, messages ...*message.Message) {
	s.Helper()
	s.must(b.Publish(topic, messages...), "publish")
}

// member is a running consumer and what it was given.
type member struct {
	suite *suite
	stop  context.CancelFunc
	ended chan struct{}
	err   error

	mu   sync.Mutex
	cond sync.Cond
	seen []seen
}

// seen is one delivery as the handler saw it.
type seen struct {
	id, key, payload string
	metadata         map[string]string
	attempt          int
	position         driver.Position
	at               time.Time
}

// subscription with defaults for what the row does not care about.
func subscription(topic, group string) driver.Subscription {
	return driver.Subscription{Topic: topic, Group: group, Concurrency: 4}
}

func acknowledge(*driver.Delivery) driver.Result { return driver.Result{} }

// join subscribes and runs a member; handle may be nil.
func (s *suite) join(b driver.Broker, sub driver.Subscription, handle func(*driver.Delivery) driver.Result) *member {
	s.Helper()
	if handle == nil {
		handle = acknowledge
	}
	m := &member{suite: s, ended: make(chan struct{})}
	m.cond.L = &m.mu
	sub.Handle = func(d *driver.Delivery) driver.Result {
		m.note(d)
		return handle(d)
	}
	consumer, err := b.Subscribe(context.Background(), sub)
	s.must(err, "subscribe")
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	go func() {
		defer close(m.ended)
		m.err = consumer.Run(ctx)
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stops = append(s.stops, func() { cancel(); s.await(m.ended, "a consumer to end") })
	return m
}

func (m *member) note(d *driver.Delivery) {
	copied := make(map[string]string, len(d.Message.Metadata))
	for k, v := range d.Message.Metadata {
		copied[k] = v
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = append(m.seen, seen{
		id: d.Message.UUID, key: d.Key, payload: string(d.Message.Payload), metadata: copied,
		attempt: d.Attempt, position: d.Position, at: time.Now(),
	})
	m.cond.Broadcast()
}

// leave ends the member cleanly.
func (m *member) leave() {
	m.suite.Helper()
	m.stop()
	m.suite.await(m.ended, "the consumer to drain and end")
	m.suite.must(m.err, "run")
}

// wait blocks until the condition holds for what the member has seen.
func (m *member) wait(what string, condition func([]seen) bool) []seen {
	m.suite.Helper()
	timeout := time.AfterFunc(patience, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.cond.Broadcast()
	})
	defer timeout.Stop()
	deadline := time.Now().Add(patience)
	m.mu.Lock()
	defer m.mu.Unlock()
	for !condition(m.seen) {
		if time.Now().After(deadline) {
			m.suite.broken("waited %v for %s; seen so far: %s", patience, what, ids(m.seen))
		}
		m.cond.Wait()
	}
	return append([]seen(nil), m.seen...)
}

// waitFor blocks until the ids were seen, however often and in any order.
func (m *member) waitFor(wanted ...string) []seen {
	m.suite.Helper()
	return m.wait(strings.Join(wanted, ", "), func(all []seen) bool {
		for _, id := range wanted {
			if count(all, id) == 0 {
				return false
			}
		}
		return true
	})
}

func (m *member) snapshot() []seen {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]seen(nil), m.seen...)
}

func (s *suite) await(c <-chan struct{}, what string) {
	s.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		s.broken("waited %v for %s", patience, what)
	}
}

func count(all []seen, id string) (n int) {
	for _, x := range all {
		if x.id == id {
			n++
		}
	}
	return n
}

func ids(all []seen) string {
	if len(all) == 0 {
		return "nothing"
	}
	text := make([]string, 0, len(all))
	for _, x := range all[max(0, len(all)-50):] {
		text = append(text, fmt.Sprintf("%s#%d", x.id, x.attempt))
	}
	return fmt.Sprintf("%d deliveries, the last: %s", len(all), strings.Join(text, " "))
}

func (s *suite) wantError(err, target error, doing string) {
	s.Helper()
	if !errors.Is(err, target) {
		s.broken("%s: got error %v, want one that is %q", doing, err, target)
	}
}
