package sagatest

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/saga"
)

// network is what is on its way. Messages of one key to one consumer keep their
// order; others arrive in any.
type network struct {
	pending []*delivery // in the order in which they were published
	seq     int
}

// delivery is a message on its way to a consumer.
type delivery struct {
	seq     int
	topic   string
	to      *consumer
	m       *message.Message
	at      time.Time // not before
	reply   bool      // of a participant to a saga
	copied  bool      // the repetition of a delivery
	act     bool      // no message, but something that somebody does
	attempt int       // failed ones
	content []byte    // for the digest of the state
}

func (n *network) enqueue(d *delivery) {
	n.seq++
	d.seq = n.seq
	n.pending = append(n.pending, d)
}

// putBack has a delivery that failed happen again, before those that came later.
func (n *network) putBack(d *delivery) {
	i, _ := slices.BinarySearchFunc(n.pending, d.seq, func(p *delivery, seq int) int { return p.seq - seq })
	n.pending = slices.Insert(n.pending, i, d)
}

func (n *network) remove(d *delivery) {
	if i := slices.Index(n.pending, d); i >= 0 {
		n.pending = slices.Delete(n.pending, i, i+1)
	}
}

// lane is what orders deliveries: those of one lane arrive one after the other.
func (d *delivery) lane() string {
	key := driver.Key(d.m)
	if key == "" || d.copied {
		return fmt.Sprintf("#%d", d.seq)
	}
	return d.to.group + "\x00" + d.to.name + "\x00" + d.topic + "\x00" + key
}

// lanes returns what can be delivered now, by lane, the one with the oldest
// message first.
func (n *network) lanes(now time.Time) [][]*delivery {
	var ready []*delivery
	for _, d := range n.pending {
		if !d.at.After(now) {
			ready = append(ready, d)
		}
	}
	slices.SortStableFunc(ready, func(a, b *delivery) int { return a.at.Compare(b.at) })
	var all [][]*delivery
	index := map[string]int{}
	for _, d := range ready {
		lane := d.lane()
		i, ok := index[lane]
		if !ok {
			i = len(all)
			index[lane] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], d)
	}
	return all
}

// next returns what is due next of what is not due yet.
func (n *network) next(now time.Time) *delivery {
	var first *delivery
	for _, d := range n.pending {
		if d.at.After(now) && (first == nil || d.at.Before(first.at)) {
			first = d
		}
	}
	return first
}

// recovers has the orchestrator look for an instance that has to be recovered, if
// its process will not have come back by then.
func (w *World) recovers(i saga.Instance) {
	name := i.Saga + "/" + i.ID
	w.pending = slices.DeleteFunc(w.pending, func(d *delivery) bool { return d.act && d.to.group == recovery && d.topic == name })
	if i.RecoverAt.IsZero() {
		return
	}
	c := &consumer{name: recovery, group: recovery, saga: true}
	for process := range c.handles {
		c.handles[process] = func(m *message.Message) error { return w.orchestrators[process].Recover(m.Context()) }
	}
	w.enqueue(&delivery{topic: name, to: c, m: message.NewMessage(name, nil), at: i.RecoverAt, act: true, content: []byte(name)})
}

// recovery is the consumer of what is no message: the time to look for an instance.
const recovery = "recovery"

// derive gives a message an id that is the same whenever the same cause has it
// published for the same reason, unless its publisher has chosen one.
func (w *World) derive(m *message.Message, cause ...string) {
	if id, err := uuid.Parse(m.UUID); err != nil || id.Version() != 7 {
		return
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", cause))
	id := uuid.UUID(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	m.UUID = id.String()
	m.Metadata[eventbus.MetadataID] = m.UUID
	if m.Metadata[eventbus.MetadataCausationID] == "" {
		m.Metadata[eventbus.MetadataCorrelationID] = m.UUID
	}
}
