package amqpbus

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// keep holds the membership until ctx ends: it reads the queues that are this
// member's share, and begins again whenever the connection is lost.
func (c *consumer) keep(ctx context.Context) {
	m := newMembership(c.names.members)
	speaking, mute := context.WithCancel(context.Background())
	defer mute()
	c.b.calls.Go(func() { m.speak(speaking, c.b.speaking) })
	defer m.hush()
	for ctx.Err() == nil {
		s, err := c.b.consuming.get(ctx)
		if err != nil {
			break // ctx ended
		}
		c.join(s, m)
		c.serve(ctx, s, m)
		if ctx.Err() != nil {
			m.say(saysBye)
		}
		m.leave()
	}
	c.giveUpAll(true)
}

func (c *consumer) join(s *session, m *membership) {
	if err := m.join(s); err != nil && s.alive() {
		c.complain("the other members can't be heard, so work may not be shared", err)
	}
}

// serve reads this member's share of the queues until ctx ends or the connection
// is lost.
func (c *consumer) serve(ctx context.Context, s *session, m *membership) {
	beat, claim, look := time.NewTicker(beatEvery), time.NewTimer(firstClaim), time.NewTimer(0)
	defer beat.Stop()
	defer claim.Stop()
	defer look.Stop()
	pause, nextClaim := minBackoff, 2*firstClaim
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.gone:
			c.giveUpAll(false)
			return
		case d, ok := <-m.heard:
			if !ok {
				m.leave() // to join again with the next beat
			} else if m.note(&d) {
				c.share(s, m)
			}
		case <-beat.C:
			if m.ch == nil {
				c.join(s, m)
			}
			m.say(saysHere)
			if m.expire() {
				c.share(s, m)
			}
		case <-claim.C:
			c.claimLate(ctx, s, m)
			claim.Reset(nextClaim)
			nextClaim = min(2*nextClaim, maxClaim)
		case in := <-c.ended:
			if pause = c.noteEnd(ctx, s, in, pause); pause > 0 {
				look.Reset(jitter(pause))
				nextClaim = firstClaim
				claim.Reset(firstClaim) // the group may just have been made again
				continue
			}
			pause = minBackoff
			c.share(s, m)
		case <-look.C:
			c.share(s, m)
		}
	}
}

// share makes this member read the queues that are its share and no other.
func (c *consumer) share(s *session, m *membership) {
	mine := m.share(len(c.names.queues))
	for q, in := range c.intakes {
		if !mine[q] {
			in.leaving()
		}
	}
	for q := range mine {
		if c.intakes[q] != nil {
			continue // one that is being given up is replaced when it has ended
		}
		in := c.newIntake(s, q)
		c.intakes[q], c.former[q] = in, in.lane
		c.ending.Go(in.run)
	}
}

// noteEnd takes an intake out that has ended and returns how long to wait before
// its queue is looked at again.
func (c *consumer) noteEnd(ctx context.Context, s *session, in *intake, pause time.Duration) time.Duration {
	delete(c.intakes, in.queue)
	if in.err == nil || !s.alive() {
		return 0
	}
	c.complain("a queue can't be read", in.err)
	if isCode(in.err, amqp.NotFound) && !c.b.cfg.NoProvision {
		if err := c.b.within(ctx, func() error { return c.mend(s) }); err != nil && ctx.Err() == nil {
			c.complain("the group can't be created again", err)
		}
	}
	return min(2*pause, maxBackoff)
}

// mend makes what is missing of the group.
func (c *consumer) mend(s *session) error {
	if err := s.declareGroup(c.names, c.b.cfg.QueueType); err != nil {
		return err
	}
	return s.do(func(ch *amqp.Channel) error {
		if err := declareTopic(ch, c.names.topic); err != nil {
			return err
		}
		return ch.ExchangeBind(c.names.base, "", c.names.topic, false, nil)
	})
}

// giveUpAll ends all intakes and waits for them.
func (c *consumer) giveUpAll(patient bool) {
	for _, in := range c.intakes {
		if in.giveUp.Err() == nil {
			in.patient = patient
			in.leaving()
		}
	}
	c.ending.Wait()
	for len(c.ended) > 0 {
		delete(c.intakes, (<-c.ended).queue)
	}
}

// claimLate lets one member of the group look for events that came too late to
// be handed to it when it was created. That can take long, and nothing waits for
// it.
func (c *consumer) claimLate(ctx context.Context, s *session, m *membership) {
	if c.b.cfg.NoProvision || !m.first() || !c.claiming.CompareAndSwap(false, true) {
		return
	}
	c.b.calls.Go(func() {
		defer c.claiming.Store(false)
		if err := c.b.claimLate(ctx, s, c.names); err != nil && s.alive() && ctx.Err() == nil {
			c.complain("events that no group had claimed can't be taken over", err)
		}
	})
}
