package outboxcrash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/faultdb"
	"github.com/millrace-go/millrace/outbox"
)

// end is what a relay has brought about.
type end struct {
	Firsts map[string][]string // first arrivals of each key
	Parked []string
}

// A relay that fails or dies at any statement or publish, and is started again,
// publishes what it would have, in the same order of each key, and leaves
// nothing behind.
func TestRelayThatFailsAnywhereEndsLikeAnUndisturbedOne(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		visit(t, p.shortened(), func(g *trigger) (end, error) { return p.relay(g, false) })
	})
}

// The same with keys that wait for their parked events.
func TestRelayWithParkedKeysThatFailsAnywhereEndsLikeAnUndisturbedOne(t *testing.T) {
	each(t, func(t *testing.T, p *place) {
		f := p.shortened()
		if !full() {
			if p.db.Dialect != outbox.SQLite {
				t.Skip("MILLRACE_OUTBOX=full visits this on servers")
			}
			f.sample = 3
		}
		visit(t, f, func(g *trigger) (end, error) { return p.relay(g, true) })
	})
}

// relayRun is the scenario: events of several keys, one due later, a transaction
// that is rolled back between others and one that commits late, an event that is
// parked and sent again, and one that stays parked.
type relayRun struct {
	*run
	broker  *broker
	parkKey bool
	late    *sql.Tx
	life    *life
	ended   sync.WaitGroup // earlier lives
}

// life is one process with a relay.
type life struct {
	p      *faultdb.Process
	box    *outbox.Outbox
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run
}

func (p *place) relay(g *trigger, parkKey bool) (e end, err error) {
	r, over, err := p.newRun(g)
	if err != nil {
		return e, err
	}
	defer over()
	s := &relayRun{run: r, broker: newBroker("p1", "p2"), parkKey: parkKey}
	defer s.ended.Wait()
	if err := s.write(); err != nil {
		return e, fmt.Errorf("write: %w", err)
	}
	if err := s.play(); err != nil {
		return e, err
	}
	e.Firsts = s.broker.all()
	e.Parked, err = s.parked()
	return e, err
}

func (s *relayRun) write() error {
	box := s.box(s.db)
	if err := box.Migrate(context.Background()); err != nil {
		return err
	}
	for i, id := range []string{"a1", "b1", "p1", "c2", "-", "a2", "s1", "p2", "c3", "b2", "a3"} {
		if i == 1 && s.dialect != outbox.SQLite {
			if err := s.openLate(box); err != nil {
				return err
			}
		}
		err := s.transact(func(tx *sql.Tx) error {
			if id == "-" {
				return errors.Join(box.In(tx).Publish("t", event("x1", "a")), errUndone)
			}
			return box.In(tx).Publish("t", event(id, keyOf(id)))
		})
		if err != nil && id != "-" {
			return err
		}
	}
	return nil
}

var errUndone = errors.New("undone")

// keyOf gives the poison a key that others have too.
func keyOf(id string) string {
	if id == "p1" {
		return "c"
	}
	return id[:1]
}

func event(id, key string) *message.Message {
	m := &message.Message{UUID: id, Metadata: message.Metadata{driver.MetadataKey: key}, Payload: []byte(id)}
	if id == "s1" {
		driver.SetDue(m, time.Now().Add(100*time.Millisecond))
	}
	return m
}

func (s *relayRun) openLate(box *outbox.Outbox) (err error) {
	if s.late, err = s.db.Begin(); err != nil {
		return err
	}
	return box.In(s.late).Publish("t", event("l1", "l"), event("l2", "l"))
}

func (s *relayRun) play() error {
	if err := s.start(); err != nil {
		return err
	}
	defer func() {
		s.bury(s.life)
		if s.late != nil {
			_ = s.late.Rollback()
		}
	}()
	want := []string{"a1", "a2", "a3", "b1", "b2", "s1"}
	if !s.parkKey {
		want = append(want, "c2", "c3")
	}
	if err := s.await(func() (bool, error) { return s.broker.has(want...), nil }); err != nil {
		return err
	}
	if s.late != nil {
		if err := s.late.Commit(); err != nil {
			return err
		}
		want = append(want, "l1", "l2")
	}
	aside := []string{"p1", "p2"}
	if s.parkKey {
		aside = []string{"c2", "c3", "p1", "p2"}
	}
	if err := s.await(s.settled(want, aside)); err != nil {
		return err
	}
	s.broker.accept("p1")
	if s.parkKey { // it may be published after the others of its key only
		want = append(want, "c2", "c3", "c4")
		box := s.box(s.db)
		if err := s.transact(func(tx *sql.Tx) error { return box.In(tx).Publish("t", event("c4", "c")) }); err != nil {
			return err
		}
	}
	if err := s.await(s.unparked); err != nil {
		return err
	}
	over := s.settled(append(want, "p1"), []string{"p2"})
	if err := s.await(over); err != nil {
		return err
	}
	return s.stopAndCheck(over)
}

// stopAndCheck ends the relay in an orderly way. If the fault happens then,
// another one mends what was left.
func (s *relayRun) stopAndCheck(over func() (bool, error)) error {
	s.life.cancel()
	<-s.life.done
	if s.life.err != nil {
		return fmt.Errorf("the relay ended: %w", s.life.err)
	}
	s.bury(s.life)
	if err := s.start(); err != nil {
		return err
	}
	return s.await(over)
}

func (s *relayRun) start() error {
	p, err := s.process()
	if err != nil {
		return err
	}
	l := &life{p: p, box: s.box(p.DB()), done: make(chan struct{})}
	opts := []outbox.RelayOption{outbox.Lease(300 * time.Millisecond), outbox.Workers(2), outbox.Batch(4), outbox.DrainTimeout(100 * time.Millisecond)}
	if s.parkKey {
		opts = append(opts, outbox.ParkKey())
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(l.done)
		l.err = l.box.Relay(publisher{s.broker, p}, opts...).Run(ctx)
	}()
	s.life = l
	return nil
}

// bury ends a life whose process is dead or not needed any more.
func (s *relayRun) bury(l *life) {
	l.p.Kill()
	l.cancel()
	s.ended.Go(func() {
		<-l.done
		_ = l.p.Close()
	})
}

// await waits for a condition. When the process dies another one starts.
func (s *relayRun) await(done func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for {
		select {
		case <-s.life.p.Dead():
			s.bury(s.life)
			if err := s.start(); err != nil {
				return err
			}
		case <-s.life.done:
			if s.life.p.Do("", func() error { return nil }) == nil {
				return fmt.Errorf("the relay ended by itself: %w", s.life.err)
			}
		case <-time.After(20 * time.Millisecond):
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: arrived %v, %s", errStuck, s.broker.all(), s.describe())
		}
	}
}

// unparked sends p1 again.
func (s *relayRun) unparked() (bool, error) {
	_, err := s.life.box.Unpark(context.Background(), "p1")
	return err == nil, nil
}
