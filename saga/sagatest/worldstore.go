package sagatest

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/saga"
)

// recorder is the store of the orchestrator. Its process may crash at every
// commit, and it keeps a record of what it has stored.
type recorder struct {
	*saga.MemoryStore
	w     *World
	kept  map[[2]string]*kept // by saga and id
	marks map[[3]string]bool  // consumer, source, id
}

// kept is an instance with its transitions.
type kept struct {
	instance saga.Instance
	history  []saga.Entry
	undone   []string // steps in the order in which their compensation began
	digest   stamped
}

func newRecorder(w *World) *recorder {
	r := &recorder{w: w, kept: map[[2]string]*kept{}, marks: map[[3]string]bool{}}
	r.MemoryStore = saga.NewMemoryStore(outbox{w})
	return r
}

// outbox publishes what the orchestrator commits.
type outbox struct{ w *World }

func (o outbox) Publish(topic string, messages ...*message.Message) error {
	for _, m := range messages {
		if err := o.w.send(topic, m, false); err != nil {
			return err
		}
	}
	return nil
}

func (outbox) Close() error { return nil }

// Load is saga.Store.Load.
func (r *recorder) Load(ctx context.Context, name, id string) (saga.Instance, error) {
	if r.w.crashed {
		return saga.Instance{}, errCrashed
	}
	return r.MemoryStore.Load(ctx, name, id)
}

// Commit is saga.Store.Commit, at which the process may crash, or another one
// may be faster.
func (r *recorder) Commit(ctx context.Context, c saga.Commit) error {
	w := r.w
	if w.crashed {
		return errCrashed
	}
	w.endCalls()
	end := w.chooseEnding(c)
	switch end.how {
	case crashBefore:
		return w.crash("before its commit")
	case overtaken:
		w.deliverWithin(end.rival, "before its commit")
	}
	w.trace.transition(c)
	if err := r.MemoryStore.Commit(ctx, c); err != nil {
		w.trace.note("the commit is refused: %v", err)
		return err
	}
	r.record(c)
	w.effects = true
	switch end.how {
	case crashAfter:
		return w.crash("after its commit")
	case followed:
		w.deliverWithin(end.rival, "before its calls have an effect")
	}
	return nil
}

func (r *recorder) record(c saga.Commit) {
	key := [2]string{c.Instance.Saga, c.Instance.ID}
	k := r.kept[key]
	if k == nil {
		k = &kept{}
		r.kept[key] = k
	}
	for _, step := range compensationsBegun(c) {
		if !slices.Contains(k.undone, step) {
			k.undone = append(k.undone, step)
		}
	}
	if !c.Instance.RecoverAt.Equal(k.instance.RecoverAt) {
		r.w.recovers(c.Instance)
	}
	k.instance = c.Instance
	k.history = append(k.history, c.Entry)
	k.digest = stampInstance(c.Instance)
	if c.EventID != "" {
		r.marks[[3]string{c.Consumer, c.Source, c.EventID}] = true
	}
}

// progress is what the stored form of an instance's progress says about steps.
type progress struct {
	Steps map[string]struct {
		Status string `json:"status"`
	} `json:"steps"`
}

// compensationsBegun returns the steps whose compensation a transition has begun,
// or begun again.
func compensationsBegun(c saga.Commit) []string {
	if c.Instance.Status == saga.Running || c.Instance.Status == saga.Completed {
		return nil
	}
	var p progress
	if json.Unmarshal(c.Instance.Progress, &p) != nil {
		return nil
	}
	var all []string
	for _, m := range c.Messages {
		step := m.Message.Metadata[saga.MetadataStep]
		if s := p.Steps[step].Status; s == "compensating" || s == "compensated" {
			all = append(all, step)
		}
	}
	for _, step := range slices.Sorted(maps.Keys(p.Steps)) {
		if s := p.Steps[step].Status; s == "compensating" || s == "calling to compensate" {
			all = append(all, step)
		}
	}
	return all
}

// isCalling reports whether calls of an instance are under way.
func isCalling(i saga.Instance) bool {
	var p progress
	if json.Unmarshal(i.Progress, &p) != nil {
		return false
	}
	for _, s := range p.Steps {
		if strings.HasPrefix(s.Status, "calling") {
			return true
		}
	}
	return false
}
