package sagatest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/saga"
)

// Opened is an empty store under test.
type Opened struct {
	Store saga.Store
	// Messages returns what has been published so far, in order. Those that are due
	// later have their due time in their metadata, and stand anywhere.
	Messages func(t *testing.T) []saga.Message
}

// RunStore checks that a store keeps the contract of saga.Store. open is called
// once per row for an empty store; what it sets up should end with t.Cleanup.
//
// The rows run in a fixed order under stable names, so a failing one can be run
// alone: go test -run 'TestConformance/one_winner'. A failure prints the rule
// that was broken.
func RunStore(t *testing.T, open func(t *testing.T) Opened) {
	for _, r := range storeRows {
		t.Run(r.name, func(t *testing.T) {
			o := open(t)
			r.run(&storeSuite{T: t, why: r.why, Store: o.Store, messages: o.Messages})
		})
	}
}

var storeRows = []struct {
	name string
	why  string
	run  func(*storeSuite)
}{
	{"missing", "what is not there is ErrNoInstance, or an empty answer", (*storeSuite).missing},
	{"transitions", "an instance is as its last transition has left it, and its history has all of them, oldest first", (*storeSuite).transitions},
	{"conflict", "a transition takes the revision after the stored one, 1 if there is none, and no other", (*storeSuite).conflict},
	{"conflict_writes_nothing", "a conflict leaves no mark, no message and no history", (*storeSuite).conflictWritesNothing},
	{"duplicate", "an event is handled once for each consumer, source and id", (*storeSuite).duplicate},
	{"duplicate_writes_nothing", "a duplicate changes nothing", (*storeSuite).duplicateWritesNothing},
	{"duplicate_before_conflict", "a duplicate of an old revision is a duplicate: a conflict would be tried again", (*storeSuite).duplicateBeforeConflict},
	{"no_event", "a transition without an event leaves no mark", (*storeSuite).noEvent},
	{"one_winner", "of concurrent transitions of one revision exactly one is committed", (*storeSuite).oneWinner},
	{"one_delivery", "of concurrent deliveries of one event exactly one is committed", (*storeSuite).oneDelivery},
	{"side_by_side", "transitions of different instances don't hinder each other", (*storeSuite).sideBySide},
	{"messages", "messages are published with the transition, in order, unchanged", (*storeSuite).messagesInOrder},
	{"due_messages", "messages that are due later keep their due time", (*storeSuite).dueMessages},
	{"any_id", "ids of any bytes and case, of up to 200 bytes, are told apart", (*storeSuite).anyID},
	{"any_text", "texts come back unchanged, and what is no text keeps no transition from being stored", (*storeSuite).anyText},
	{"any_state", "states and progress come back byte by byte", (*storeSuite).anyState},
	{"times", "times are kept to the millisecond, and where there is none it is the zero time", (*storeSuite).times},
	{"list_status", "lists have the instances of the saga in the given allStatuses, or in any", (*storeSuite).listStatus},
	{"list_prefix", "a prefix of an id is taken as it is: no pattern, no other case", (*storeSuite).listPrefix},
	{"list_order", "lists begin with the newest transition, go back from Before, and end at their limit", (*storeSuite).listOrder},
	{"list_pages", "pages that begin where the last one ended have every instance once, also those of one time", (*storeSuite).listPages},
	{"list_recoverable", "instances that are under way are found from the time on at which they are to be recovered", (*storeSuite).listRecoverable},
	{"count", "instances are counted by saga and status", (*storeSuite).count},
	{"pin", "the first fingerprint of a definition's version stays, also of several at once", (*storeSuite).pin},
}

type storeSuite struct {
	*testing.T
	saga.Store
	why      string
	messages func(t *testing.T) []saga.Message
}

// broken ends the row.
func (s *storeSuite) broken(format string, args ...any) {
	s.Helper()
	s.Fatalf(format+"\nrule: %s", append(args, s.why)...)
}

func (s *storeSuite) ok(err error) {
	s.Helper()
	if err != nil {
		s.broken("%v", err)
	}
}

func (s *storeSuite) commit(c saga.Commit) saga.Commit {
	s.Helper()
	s.ok(s.Commit(s.Context(), c))
	return c
}

func (s *storeSuite) refused(want error, c saga.Commit) {
	s.Helper()
	if err := s.Commit(s.Context(), c); !errors.Is(err, want) {
		s.broken("Commit of %s revision %d: the error is %v, want %v", c.Instance.ID, c.Instance.Revision, err, want)
	}
}

const storeSaga = "fulfilment"

var storeEpoch = time.Date(2026, 7, 28, 12, 0, 0, 0, time.UTC)

// firstCommit is the first transition of an instance.
func firstCommit(id string) saga.Commit { return firstCommitOf(storeSaga, id) }

func firstCommitOf(name, id string) saga.Commit {
	i := saga.Instance{
		Saga: name, Version: 3, ID: id, Revision: 1, Status: saga.Running, State: json.RawMessage(`{"Total":1}`), StateVersion: 2,
		Progress: json.RawMessage(`{"order":[]}`), Created: storeEpoch, Updated: storeEpoch,
	}
	e := saga.Entry{Saga: name, ID: id, Revision: 1, At: storeEpoch, Event: "start", To: "running: reserve stock", State: i.State}
	return saga.Commit{Instance: i, Entry: e}
}

// commitAfter is the transition after c, by no event.
func commitAfter(c saga.Commit) saga.Commit {
	i := c.Instance
	i.Revision++
	i.Updated = i.Updated.Add(time.Second)
	i.State = json.RawMessage(fmt.Sprintf(`{"Total":%d}`, i.Revision))
	e := saga.Entry{
		Saga: i.Saga, ID: i.ID, Revision: i.Revision, At: i.Updated, Event: "stock.reserved", From: c.Entry.To, To: fmt.Sprint("step ", i.Revision), State: i.State,
	}
	return saga.Commit{Instance: i, Entry: e}
}

// marked marks an event, and adds a message.
func marked(c saga.Commit, consumer, source, id string) saga.Commit {
	c.Consumer, c.Source, c.EventID, c.Entry.EventID = consumer, source, id, id
	return emitting(c, "stock.reserve", c.Instance.ID+" by "+id)
}

func emitting(c saga.Commit, topic string, ids ...string) saga.Commit {
	for _, id := range ids {
		m := message.NewMessage(id, message.Payload("payload of "+id))
		m.Metadata["ce_type"] = topic
		c.Messages = append(slices.Clip(c.Messages), saga.Message{Topic: topic, Message: m})
		c.Entry.Emitted = append(slices.Clip(c.Entry.Emitted), topic)
	}
	return c
}

// stored demands that an instance is as the last of commits has left it, and that
// its history has all of them.
func (s *storeSuite) stored(commits ...saga.Commit) {
	s.Helper()
	want := commits[len(commits)-1].Instance
	got, err := s.Load(s.Context(), want.Saga, want.ID)
	s.ok(err)
	s.same(got, want)
	entries, err := s.History(s.Context(), want.Saga, want.ID)
	s.ok(err)
	if len(entries) != len(commits) {
		s.broken("the history of %q has %d entries, want %d", want.ID, len(entries), len(commits))
	}
	for n, c := range commits {
		s.sameEntry(entries[n], c.Entry)
	}
}

func (s *storeSuite) same(got, want saga.Instance) {
	s.Helper()
	sameBytes := bytes.Equal(got.State, want.State) && bytes.Equal(got.Progress, want.Progress)
	sameTimes := got.Wake.Equal(want.Wake) && got.RecoverAt.Equal(want.RecoverAt) && got.Created.Equal(want.Created) && got.Updated.Equal(want.Updated)
	plain := func(i saga.Instance) string {
		return fmt.Sprintf("%q", []any{i.Saga, i.Version, i.ID, i.Revision, string(i.Status), i.StateVersion, i.Error})
	}
	if !sameBytes || !sameTimes || plain(got) != plain(want) {
		s.broken("the instance is\n%+v, want\n%+v", got, want)
	}
}

func (s *storeSuite) sameEntry(got, want saga.Entry) {
	s.Helper()
	plain := func(e saga.Entry) string {
		return fmt.Sprintf("%q", []any{e.Saga, e.ID, e.Revision, e.Event, e.EventID, e.From, e.To, e.Note, string(e.State), slices.Concat(e.Emitted)})
	}
	if !got.At.Equal(want.At) || plain(got) != plain(want) {
		s.broken("the entry is\n%+v, want\n%+v", got, want)
	}
}

// published returns the ids of what was published.
func (s *storeSuite) published() (ids []string) {
	s.Helper()
	for _, m := range s.messages(s.T) {
		ids = append(ids, m.Message.UUID)
	}
	return ids
}

func (s *storeSuite) wantPublished(want ...string) {
	s.Helper()
	if got := s.published(); !slices.Equal(got, want) {
		s.broken("published is %q, want %q", got, want)
	}
}
