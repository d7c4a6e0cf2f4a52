package sagatest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/sagatest"
)

// storeLog keeps what is published.
type storeLog struct {
	mu  sync.Mutex
	all []saga.Message
}

func (l *storeLog) Publish(topic string, messages ...*message.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range messages {
		l.all = append(l.all, saga.Message{Topic: topic, Message: m})
	}
	return nil
}

func (*storeLog) Close() error { return nil }

func (l *storeLog) messages(*testing.T) []saga.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

func TestMemoryStoreConformance(t *testing.T) {
	sagatest.RunStore(t, func(*testing.T) sagatest.Opened {
		l := &storeLog{}
		return sagatest.Opened{Store: saga.NewMemoryStore(l), Messages: l.messages}
	})
}

// storeMutant is a MemoryStore with one promise broken.
type storeMutant struct {
	saga.Store
	log    *storeLog
	broken storeBreak
}

type storeBreak struct {
	change  func(c *saga.Commit)
	commit  func(s storeMutant, c saga.Commit) error
	history func(all []saga.Entry) []saga.Entry
	query   func(q *saga.Query)
	list    func(s storeMutant, q saga.Query, found []saga.Instance) []saga.Instance
	count   func(n map[saga.Status]int64)
	pin     func(given, pinned string) string
}

func (m storeMutant) Commit(ctx context.Context, c saga.Commit) error {
	if m.broken.change != nil {
		m.broken.change(&c)
	}
	if m.broken.commit != nil {
		return m.broken.commit(m, c)
	}
	return m.Store.Commit(ctx, c)
}

func (m storeMutant) History(ctx context.Context, name, id string) ([]saga.Entry, error) {
	all, err := m.Store.History(ctx, name, id)
	if m.broken.history != nil {
		all = m.broken.history(all)
	}
	return all, err
}

func (m storeMutant) List(ctx context.Context, q saga.Query) ([]saga.Instance, error) {
	if m.broken.query != nil {
		m.broken.query(&q)
	}
	found, err := m.Store.List(ctx, q)
	if m.broken.list != nil {
		found = m.broken.list(m, q, found)
	}
	return found, err
}

func (m storeMutant) Count(ctx context.Context, name string) (map[saga.Status]int64, error) {
	n, err := m.Store.Count(ctx, name)
	if m.broken.count != nil {
		m.broken.count(n)
	}
	return n, err
}

func (m storeMutant) Pin(ctx context.Context, name string, version int, fingerprint string) (string, error) {
	pinned, err := m.Store.Pin(ctx, name, version, fingerprint)
	if m.broken.pin != nil {
		pinned = m.broken.pin(fingerprint, pinned)
	}
	return pinned, err
}

// force commits c whatever revision there is.
func (m storeMutant) force(c saga.Commit) error {
	for {
		i, _ := m.Load(context.Background(), c.Instance.Saga, c.Instance.ID)
		c.Instance.Revision = i.Revision + 1
		if err := m.Store.Commit(context.Background(), c); !errors.Is(err, saga.ErrConflict) {
			return err
		}
	}
}

// current reports whether c takes the revision after the stored one.
func (m storeMutant) current(c saga.Commit) bool {
	i, _ := m.Load(context.Background(), c.Instance.Saga, c.Instance.ID)
	return i.Revision == c.Instance.Revision-1
}

// apart has the parts of a transition done in several transactions.
func apart(mark, publish bool) storeBreak {
	return storeBreak{commit: func(m storeMutant, c saga.Commit) error {
		if publish {
			for _, x := range c.Messages {
				_ = m.log.Publish(x.Topic, x.Message)
			}
			c.Messages = nil
		}
		err := m.Store.Commit(context.Background(), c)
		if mark && c.EventID != "" && errors.Is(err, saga.ErrConflict) {
			own := saga.Commit{Consumer: c.Consumer, Source: c.Source, EventID: c.EventID}
			own.Instance = saga.Instance{Saga: "mark", ID: c.EventID, Revision: 1}
			_ = m.Store.Commit(context.Background(), own)
		}
		return err
	}}
}

// storeMutants names, for each broken promise, a row that must notice.
var storeMutants = map[string]struct {
	row    string
	broken storeBreak
}{
	"has no history":     {"transitions", storeBreak{history: func(all []saga.Entry) []saga.Entry { return all[max(0, len(all)-1):] }}},
	"takes any revision": {"conflict", storeBreak{commit: storeMutant.force}},
	"marks by itself":    {"conflict_writes_nothing", apart(true, false)},
	"publishes first":    {"duplicate_writes_nothing", apart(false, true)},
	"knows no consumers": {"duplicate", storeBreak{change: func(c *saga.Commit) { c.Consumer = "" }}},
	"marks nothing":      {"duplicate_writes_nothing", storeBreak{change: func(c *saga.Commit) { c.EventID = "" }}},
	"looks at the revision first": {"duplicate_before_conflict", storeBreak{commit: func(m storeMutant, c saga.Commit) error {
		if !m.current(c) {
			return saga.ErrConflict
		}
		return m.Store.Commit(context.Background(), c)
	}}},
	"marks what is no event": {"no_event", storeBreak{change: func(c *saga.Commit) {
		if c.EventID == "" {
			c.EventID = "none"
		}
	}}},
	"reads and then writes": {"one_winner", storeBreak{commit: func(m storeMutant, c saga.Commit) error {
		if !m.current(c) {
			return saga.ErrConflict
		}
		time.Sleep(10 * time.Millisecond) // so that others read, too
		return m.force(c)
	}}},
	"turns messages round": {"messages", storeBreak{change: func(c *saga.Commit) { c.Messages = slices.Clone(c.Messages); slices.Reverse(c.Messages) }}},
	"publishes at once": {"due_messages", storeBreak{change: func(c *saga.Commit) {
		for _, m := range c.Messages {
			delete(m.Message.Metadata, driver.MetadataDue)
		}
	}}},
	"folds case": {"any_id", storeBreak{change: func(c *saga.Commit) { c.Instance.ID = strings.ToLower(c.Instance.ID) }}},
	"cuts notes": {"any_text", storeBreak{change: func(c *saga.Commit) { c.Entry.Note = c.Entry.Note[:min(len(c.Entry.Note), 1000)] }}},
	"tidies states up": {"any_state", storeBreak{change: func(c *saga.Commit) {
		var tidy bytes.Buffer
		if json.Compact(&tidy, c.Instance.State) == nil {
			c.Instance.State = tidy.Bytes()
		}
	}}},
	"keeps seconds":      {"times", storeBreak{change: func(c *saga.Commit) { c.Instance.Wake = c.Instance.Wake.Truncate(time.Second) }}},
	"lists every status": {"list_status", storeBreak{query: func(q *saga.Query) { q.Status = nil }}},
	"takes prefixes for patterns": {"list_prefix", storeBreak{list: func(m storeMutant, q saga.Query, found []saga.Instance) []saga.Instance {
		if before, _, ok := strings.Cut(q.ID, "_"); ok {
			q.ID = before
			found, _ = m.Store.List(context.Background(), q)
		}
		return found
	}}},
	"lists the oldest first": {"list_order", storeBreak{list: func(_ storeMutant, _ saga.Query, found []saga.Instance) []saga.Instance {
		slices.Reverse(found)
		return found
	}}},
	"recovers all": {"list_recoverable", storeBreak{query: func(q *saga.Query) {
		if !q.RecoverableAt.IsZero() {
			q.RecoverableAt = q.RecoverableAt.Add(time.Hour)
		}
	}}},
	"has no limit":   {"list_order", storeBreak{query: func(q *saga.Query) { q.Limit = 1000 }}},
	"counts roughly": {"count", storeBreak{count: func(n map[saga.Status]int64) { n[saga.Running]++ }}},
	"pins the last":  {"pin", storeBreak{pin: func(given, _ string) string { return given }}},
}

const storeMutantEnv = "MILLRACE_SAGATEST_MUTANT"

// TestStoreMutant is the process in which a mutant fails the suite.
func TestStoreMutant(t *testing.T) {
	name := os.Getenv(storeMutantEnv)
	if name == "" {
		t.Skip("this is a process of another test")
	}
	sagatest.RunStore(t, func(*testing.T) sagatest.Opened {
		l := &storeLog{}
		return sagatest.Opened{Store: storeMutant{saga.NewMemoryStore(l), l, storeMutants[name].broken}, Messages: l.messages}
	})
}

// The suite notices every broken promise, in the row about it, and says the rule.
func TestTheSuiteNoticesBrokenStores(t *testing.T) {
	for name, m := range storeMutants {
		t.Run(name, func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run", "^TestStoreMutant$/^"+m.row+"$")
			child.Env = append(os.Environ(), storeMutantEnv+"="+name)
			out, err := child.CombinedOutput()
			require.Error(t, err, string(out))
			require.Contains(t, string(out), "rule: ", string(out))
			require.Contains(t, string(out), "--- FAIL: TestStoreMutant/"+m.row)
		})
	}
}
