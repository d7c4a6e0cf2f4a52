package saga

import (
	"encoding/json"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Child runs a saga within a step: Step.Do starts it, and Succeeded is the step's
// Success. The child's id is the parent's, followed by "/" and the step's key. A
// child that was compensated has failed, and when the parent is compensated, so is
// the child: the step needs neither Failure nor Compensate. Only a child in the
// notation of states has to be told by the step's Compensate, such as a Call that
// sends it a signal.
func Child[S, C any](d Definition[C], state func(s S) C) Action[S] {
	a := action{kind: startChild, child: d.Name, undoesItself: len(d.States) == 0}
	a.childState = func(s any) (json.RawMessage, error) { return json.Marshal(state(*s.(*S))) }
	return Action[S]{a}
}

// Succeeded waits for a child that completes; apply gets its final state.
func Succeeded[S, C any](d Definition[C], apply func(s *S, child C)) Event[S] {
	src := endedSource(d.Name, Completed)
	if apply != nil {
		src.apply = func(state, value any) {
			var child C
			if err := json.Unmarshal(value.(ended).State, &child); err != nil {
				panic(fmt.Errorf("the state of saga %q can't be decoded as %T: %w", d.Name, child, err))
			}
			apply(state.(*S), child)
		}
	}
	return Event[S]{[]source{src}}
}

func childKey(child string, as Status) string { return "child:" + child + ":" + string(as) }

// endedSource is the end of a child with the given status.
func endedSource(child string, as Status) source {
	topic := endedTopic(child)
	return source{
		key: childKey(child, as), topic: topic.Name(),
		decode: func(m *message.Message) (any, string, error) {
			e, err := topic.Decode(m)
			return e.Data, e.Data.ParentID, err
		},
	}
}

// startChild has the child's orchestrator start it.
func (t *transit) startChild(a action, key string) {
	state, err := a.childState(t.state)
	if err != nil {
		t.stuck(fmt.Sprintf("step %q: the state of saga %q can't be encoded: %v", key, a.child, err))
		return
	}
	announce(t, controlTopic(a.child), control{
		ID: t.childID(key), Kind: controlStart, Data: state, Parent: &parent{Saga: t.instance.Saga, ID: t.instance.ID, Step: key},
	}, t.messageID("start "+key))
}

// compensateChild has the child compensated. completed says that it has completed,
// for certain.
func (t *transit) compensateChild(a action, key string, completed bool) {
	announce(t, controlTopic(a.child), control{
		ID: t.childID(key), Kind: controlCompensate, Name: "its parent is compensated", Done: completed,
		Parent: &parent{Saga: t.instance.Saga, ID: t.instance.ID, Step: key},
	}, t.messageID("compensate "+key))
}

func (t *transit) childID(key string) string { return t.instance.ID + "/" + key }
