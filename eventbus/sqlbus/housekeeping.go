package sqlbus

import "time"

const (
	dueStep       = 500  // events moved in one transaction
	retentionStep = 1000 // events removed in one transaction
)

// sweepAll removes events that are past their retention. Like keepHouse, every
// process does; locks see to it that each thing is done once.
func (b *Broker) sweepAll() {
	period := min(max(b.cfg.Retention/10, 100*time.Millisecond), time.Minute)
	for wait(b.open, nil, period) {
		if err := b.sweep(); err != nil && b.open.Err() == nil {
			b.cfg.Logger.Warn("sqlbus: removing old events failed, it will be tried again", "database", b.store.name, "error", err)
		}
	}
}

// keepHouse moves events that became due into the log.
func (b *Broker) keepHouse() {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-b.open.Done():
			return
		case <-b.dueChanged:
		case <-due.C:
		}
		wait, err := b.moveDue()
		if err != nil && b.open.Err() == nil {
			b.cfg.Logger.Warn("sqlbus: events that became due could not be moved in, it will be tried again", "database", b.store.name, "error", err)
			wait = time.Second
		}
		due.Reset(wait)
	}
}

// moveDue moves the events that are due and returns the time until the next is.
func (b *Broker) moveDue() (time.Duration, error) {
	for {
		wait, ok, err := b.store.read.number("SELECT min(due_at) - {now} FROM millrace_due")
		if err != nil || !ok {
			return b.store.dialect.idleDue, err
		}
		if wait > 0 {
			// The clock may be set, and somebody else may add what is due before.
			return min(time.Duration(wait)*time.Microsecond, time.Second, b.store.dialect.idleDue), nil
		}
		ctx, cancel := b.untilClosed(background)
		err = b.engine.moveDue(ctx)
		cancel()
		if err != nil {
			return time.Second, err
		}
		b.wakeAll()
	}
}
