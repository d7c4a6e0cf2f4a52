package sqlbus

import (
	"fmt"
	"time"
)

const (
	dueStep       = 500  // events moved in one transaction
	retentionStep = 1000 // events removed in one transaction
)

// keepHouse moves events that became due into the log and removes those that
// are past their retention. Every process does; the file's lock sees to it
// that each thing is done once.
func (b *Broker) keepHouse() {
	period := min(max(b.cfg.Retention/10, 100*time.Millisecond), time.Minute)
	sweep := time.NewTicker(period)
	defer sweep.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-b.open.Done():
			return
		case <-b.dueChanged:
		case <-due.C:
		case <-sweep.C:
			if err := b.sweep(); err != nil && b.open.Err() == nil {
				b.cfg.Logger.Warn("sqlbus: removing old events failed, it will be tried again", "file", b.file.path, "error", err)
			}
			continue
		}
		wait, err := b.moveDue()
		if err != nil && b.open.Err() == nil {
			b.cfg.Logger.Warn("sqlbus: events that became due could not be moved in, it will be tried again", "file", b.file.path, "error", err)
			wait = time.Second
		}
		due.Reset(wait)
	}
}

// moveDue moves the events that are due and returns the time until the next is.
func (b *Broker) moveDue() (time.Duration, error) {
	for {
		next, ok, err := b.file.read.number("SELECT min(due_at) FROM millrace_due")
		if err != nil || !ok {
			return time.Hour, err
		}
		if wait := time.Until(time.UnixMicro(next)); wait > 0 {
			return min(wait, time.Second), nil // the clock may be set
		}
		ctx, cancel := b.untilClosed(background)
		err = b.writer.do(ctx, 0, func(s *session) error { return moveDue(s, time.Now().UnixMicro()) })
		cancel()
		if err != nil {
			return time.Second, err
		}
		b.wakeAll()
	}
}

func moveDue(s *session, now int64) error {
	first := fmt.Sprintf(" FROM millrace_due WHERE due_at <= ? ORDER BY due_at, seq LIMIT %d", dueStep)
	_, err := s.exec("INSERT INTO millrace_events (topic, partition, key, id, metadata, payload, published_at) SELECT topic, partition, key, id, metadata, payload, ?"+first, now, now)
	if err != nil {
		return err
	}
	_, err = s.exec("DELETE FROM millrace_due WHERE seq IN (SELECT seq"+first+")", now)
	return err
}
