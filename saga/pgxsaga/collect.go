package pgxsaga

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
)

// collected keeps what a transition publishes: one parcel for each call.
type collected struct{ parcels []parcel }

type parcel struct {
	topic    string
	messages []*message.Message
}

func (c *collected) Publish(topic string, messages ...*message.Message) error {
	c.parcels = append(c.parcels, parcel{topic, messages})
	return nil
}

func (*collected) Close() error { return nil }

// publishAll publishes what the transitions of a group publish: the first parcels
// of all, those of one topic together, then the second ones, so that messages of
// a transition stay in order.
func publishAll(ctx context.Context, to message.Publisher, group []*transition) error {
	all := make([]collected, len(group))
	most := 0
	for n, t := range group {
		if err := t.item.Publish(ctx, &all[n]); err != nil {
			return err
		}
		most = max(most, len(all[n].parcels))
	}
	var errs []error
	for turn := range most {
		for _, p := range byTopic(all, turn) {
			errs = append(errs, to.Publish(p.topic, p.messages...))
		}
	}
	return errors.Join(errs...)
}

// byTopic puts together the parcels of one turn that have the same topic.
func byTopic(all []collected, turn int) (parcels []parcel) {
	at := map[string]int{}
	for _, c := range all {
		if turn >= len(c.parcels) {
			continue
		}
		p := c.parcels[turn]
		n, known := at[p.topic]
		if !known {
			at[p.topic] = len(parcels)
			parcels = append(parcels, parcel{topic: p.topic})
			n = len(parcels) - 1
		}
		parcels[n].messages = append(parcels[n].messages, p.messages...)
	}
	return parcels
}
