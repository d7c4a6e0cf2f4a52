package sagatest

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/saga"
)

// digest identifies a state of the World: two with one digest have the same
// future.
type digest [16]byte

// state returns the digest of the World's state. Times count by their order
// alone, ids of messages by whether they were handled.
func (w *World) state() digest {
	at := now()
	ranks := w.ranks(at)
	b := make([]byte, 0, 4096)
	for _, k := range slices.SortedFunc(maps.Keys(w.store.kept), compareKeys) {
		b = w.store.kept[k].digest.append(b, ranks)
	}
	for _, name := range slices.Sorted(maps.Keys(w.participants)) {
		b = append(append(b, w.participants[name].digest...), '\n')
	}
	for _, d := range w.describePending(ranks) {
		b = append(append(b, d...), '\n')
	}
	if w.alternate {
		b = strconv.AppendInt(b, int64(w.steps%2), 10)
	}
	sum := sha256.Sum256(b)
	return digest(sum[:16])
}

// ranks numbers all times to come in their order.
func (w *World) ranks(at time.Time) map[time.Time]int {
	var times []time.Time
	add := func(t time.Time) {
		if t.After(at) {
			times = append(times, t)
		}
	}
	for _, k := range w.store.kept {
		for _, t := range k.digest.times {
			add(t)
		}
	}
	for _, d := range w.pending {
		add(d.at.UTC())
	}
	slices.SortFunc(times, time.Time.Compare)
	ranks := map[time.Time]int{}
	for _, t := range times {
		if ranks[t] == 0 {
			ranks[t] = len(ranks) + 1
		}
	}
	return ranks
}

// describePending returns what is on its way, in an order that does not depend on
// when it was published.
func (w *World) describePending(ranks map[time.Time]int) []string {
	lanes, ids := map[string]int{}, map[string]int{}
	all := make([]string, len(w.pending))
	for i, d := range w.pending {
		lane, id := d.lane(), d.to.name+"\x00"+d.topic+"\x00"+d.m.UUID
		var b strings.Builder
		fmt.Fprintf(&b, "%s|%t %t|%t|%d|%d|%d|%d|", d.to.name, d.copied, d.reply, w.handled(d), d.attempt, ranks[d.at.UTC()], lanes[lane], ids[id])
		b.Write(d.content)
		all[i] = b.String()
		lanes[lane]++
		ids[id]++
	}
	slices.Sort(all)
	return all
}

// handled reports whether d's consumer has handled its message before.
func (w *World) handled(d *delivery) bool {
	if !d.to.saga {
		return w.participants[d.to.name].inbox[d.topic+"/"+d.m.UUID]
	}
	return w.store.marks[[3]string{d.to.group, d.m.Metadata[eventbus.MetadataSource], d.m.UUID}]
}

// contentOf returns what of a message makes a difference.
func contentOf(topic string, m *message.Message) []byte {
	md := m.Metadata
	b := fmt.Appendf(nil, "%q %q %q %q %q ", topic, driver.Key(m), md[saga.MetadataSaga], md[saga.MetadataInstance], md[saga.MetadataStep])
	return stamp(m.Payload).append(b, nil)
}
