package saga

import (
	"encoding/json"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
)

// Topics of a saga's own. Their names begin with "saga." and the saga's name.

// StuckAlert says that an instance needs an operator.
type StuckAlert struct {
	Saga    string `json:"saga"`
	ID      string `json:"id"`
	Version int    `json:"version"`
	Reason  string `json:"reason"`
}

// StuckAlerts is the topic of a saga's alerts: one for each time that an instance
// gets stuck.
func StuckAlerts(saga string) eventbus.Topic[StuckAlert] {
	return eventbus.NewTopic[StuckAlert]("saga."+saga+".stuck", eventbus.KeyBy(func(a StuckAlert) string { return a.ID }))
}

// ended says to a parent that its sub-saga has ended.
type ended struct {
	Saga       string          `json:"saga"`
	ID         string          `json:"id"`
	Status     Status          `json:"status"`
	State      json.RawMessage `json:"state"`
	Reason     string          `json:"reason,omitempty"`
	Parent     string          `json:"parent"`
	ParentID   string          `json:"parent_id"`
	ParentStep string          `json:"parent_step"`
}

func endedTopic(saga string) eventbus.Topic[ended] {
	return eventbus.NewTopic[ended]("saga."+saga+".ended", eventbus.KeyBy(func(e ended) string { return e.ParentID }))
}

// control is an orchestrator's message to itself, and others' to it.
type control struct {
	ID     string          `json:"id"`
	Kind   controlKind     `json:"kind"`
	Name   string          `json:"name,omitempty"` // of a signal or a step
	Data   json.RawMessage `json:"data,omitempty"`
	Parent *parent         `json:"parent,omitempty"`
	Done   bool            `json:"done,omitempty"` // what a parent compensates had completed
}

type controlKind string

const (
	controlStart      controlKind = "start"
	controlWake       controlKind = "wake"
	controlSignal     controlKind = "signal"
	controlCancel     controlKind = "cancel"
	controlCompensate controlKind = "compensate"
	controlRetry      controlKind = "retry"
	controlSkip       controlKind = "skip"
)

func controlName(saga string) string { return "saga." + saga + ".control" }

func controlTopic(saga string) eventbus.Topic[control] {
	return eventbus.NewTopic[control](controlName(saga), eventbus.KeyBy(func(c control) string { return c.ID }))
}

// decodeSignal reads the data of a signal that came in a control message.
func decodeSignal[E any](m *message.Message) (any, string, error) {
	var c control
	if err := json.Unmarshal(m.Payload, &c); err != nil {
		return nil, "", err
	}
	var e E
	if len(c.Data) > 0 {
		if err := json.Unmarshal(c.Data, &e); err != nil {
			return nil, "", eventbus.Permanent(err)
		}
	}
	return e, c.ID, nil
}
