package saga

import "time"

// Observation is a transition that was stored.
type Observation struct {
	Instance Instance // after it
	Event    string   // as in Entry
	From     Status   // empty for the first
	// Waited is how long it was since the transition before; zero for the first.
	Waited time.Duration
}

func (o *Orchestrator) observe(t *transit, c Commit) {
	if o.cfg.Observer == nil {
		return
	}
	ob := Observation{Instance: c.Instance, Event: c.Entry.Event}
	if t.instance.Revision > 0 {
		ob.From, ob.Waited = t.was, c.Instance.Updated.Sub(t.instance.Updated)
	}
	o.cfg.Observer(ob)
}
