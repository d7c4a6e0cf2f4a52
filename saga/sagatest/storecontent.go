package sagatest

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/saga"
)

func (s *storeSuite) messagesInOrder() {
	c := firstCommit("1")
	c = emitting(c, "a", "1")
	c = emitting(c, "b", "2", "3")
	c = emitting(c, "a", "4", "5")
	c.Messages[1].Message.Metadata["odd"] = "ä 🌊 \xff\x00 '\""
	c.Messages[2].Message.Payload = message.Payload{0, 1, 0xff}
	c.Messages[3].Message.Payload = nil
	s.commit(c)
	d := s.commit(emitting(commitAfter(c), "b", "6"))
	s.stored(c, d)
	got := s.messages(s.T)
	want := append(slices.Clone(c.Messages), d.Messages...)
	if len(got) != len(want) {
		s.broken("%d messages were published, want %d", len(got), len(want))
	}
	for n, w := range want {
		g := got[n]
		if g.Topic != w.Topic || g.Message.UUID != w.Message.UUID || !bytes.Equal(g.Message.Payload, w.Message.Payload) || !maps.Equal(g.Message.Metadata, w.Message.Metadata) {
			s.broken("message %d is %q %+v, want %q %+v", n, g.Topic, g.Message, w.Topic, w.Message)
		}
	}
}

func (s *storeSuite) dueMessages() {
	due := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	c := emitting(firstCommit("1"), "a", "now", "later", "now too")
	driver.SetDue(c.Messages[1].Message, due)
	s.commit(c)
	got := map[string]time.Time{}
	for _, m := range s.messages(s.T) {
		at, err := driver.Due(m.Message)
		s.ok(err)
		got[m.Message.UUID] = at
	}
	if len(got) != 3 || !got["later"].Equal(due) || !got["now"].IsZero() || !got["now too"].IsZero() {
		s.broken("the due times are %v, want %v for %q", got, due, "later")
	}
}

func (s *storeSuite) anyID() {
	long := strings.Repeat("l", 199)
	ids := []string{
		"a", "A", "a ", " a", "ä", "a\u0308", "ss", "ß", "a\x00", "a\x00b", "\xff\xfe", "\xff", "🌊", "日本", `'"\;--`, "%", "_", "a%", "0", "00",
		long + "1", long + "2", strings.Repeat("🌊", 50),
	}
	for n, id := range ids {
		c := firstCommit(id)
		c.Instance.Version = n
		s.commit(c)
	}
	other := s.commit(firstCommitOf("other", "a"))
	s.stored(other)
	for n, id := range ids {
		c := firstCommit(id)
		c.Instance.Version = n
		s.stored(c, s.commit(commitAfter(c)))
		found, err := s.List(s.Context(), saga.Query{Saga: storeSaga, ID: id})
		s.ok(err)
		if !slices.ContainsFunc(found, func(i saga.Instance) bool { return i.ID == id }) {
			s.broken("List does not find %q", id)
		}
	}
	if n, err := s.Count(s.Context(), storeSaga); err != nil || n[saga.Running] != int64(len(ids)) {
		s.broken("Count is %v, %v, want %d", n, err, len(ids))
	}
}

func (s *storeSuite) anyText() {
	text := "line\n\ttab 'single' \"double\" \\ ä ß 日本 🌊 % $1 ? {p} " + strings.Repeat("long ", 20_000)
	c := firstCommit("1")
	c.Instance.Error = text
	c.Entry.Note, c.Entry.Event, c.Entry.From, c.Entry.To = text, "signal:"+text, text, text
	c.Entry.EventID = "\xff\x00"
	s.commit(c)
	s.stored(c)
	bad := commitAfter(c)
	bad.Instance.Error, bad.Entry.Note, bad.Entry.Event = "a\x00b\xffc", "a\x00b\xffc", "signal:a\x00b\xffc"
	bad.Entry.From, bad.Entry.To = "a\x00b\xffc", "a\x00b\xffc"
	s.commit(bad)
	i, err := s.Load(s.Context(), storeSaga, "1")
	s.ok(err)
	if i.Revision != 2 || !strings.HasPrefix(i.Error, "a") || !strings.HasSuffix(i.Error, "c") {
		s.broken("the instance is %+v", i)
	}
}

func (s *storeSuite) anyState() {
	c := firstCommit("1")
	var all []saga.Commit
	for n, state := range []string{
		`{"b":1, "a":2,  "a":3}`, `{"n":1.0e+2,"big":12345678901234567890}`, ` [ ] `, `"\u0000 \ud83c\udf0a"`, `"🌊 'q' \\ \"d\""`, `null`, "", "\"\xff\"",
		`"` + strings.Repeat("0123456789abcdef", 1<<16) + `"`,
	} {
		if n > 0 {
			c = commitAfter(c)
		}
		c.Instance.State, c.Instance.Progress, c.Entry.State = json.RawMessage(state), json.RawMessage(state), json.RawMessage(state)
		all = append(all, s.commit(c))
		s.stored(all...)
	}
}

func (s *storeSuite) times() {
	zone := time.FixedZone("east", 5*3600+1800)
	c := firstCommit("1")
	var all []saga.Commit
	for n, at := range []time.Time{
		{}, storeEpoch.Add(time.Millisecond), storeEpoch.Add(999 * time.Millisecond).In(zone), time.Date(2199, 12, 31, 23, 59, 59, 1e6, time.UTC), {},
	} {
		if n > 0 {
			c = commitAfter(c)
		}
		c.Instance.Wake, c.Instance.RecoverAt = at, at
		c.Instance.Updated = storeEpoch.Add(time.Duration(n) * time.Millisecond).In(zone)
		c.Entry.At = c.Instance.Updated
		all = append(all, s.commit(c))
		s.stored(all...)
		i, err := s.Load(s.Context(), storeSaga, "1")
		s.ok(err)
		if i.Wake.IsZero() != at.IsZero() || i.RecoverAt.IsZero() != at.IsZero() {
			s.broken("Wake is %v and RecoverAt %v, want %v", i.Wake, i.RecoverAt, at)
		}
	}
}
