package sagatest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace-go/millrace/saga"
)

func (s *storeSuite) missing() {
	s.commit(firstCommit("there"))
	for _, key := range [][2]string{{storeSaga, "other"}, {"other", "there"}} {
		if _, err := s.Load(s.Context(), key[0], key[1]); !errors.Is(err, saga.ErrNoInstance) {
			s.broken("Load of %q: the error is %v", key, err)
		}
		entries, err := s.History(s.Context(), key[0], key[1])
		if err != nil || len(entries) > 0 {
			s.broken("History of %q is %v, %v", key, entries, err)
		}
	}
	all, err := s.List(s.Context(), saga.Query{Saga: "other"})
	if err != nil || len(all) > 0 {
		s.broken("List is %v, %v", all, err)
	}
	n, err := s.Count(s.Context(), "other")
	if err != nil || len(n) > 0 {
		s.broken("Count is %v, %v", n, err)
	}
}

func (s *storeSuite) transitions() {
	one := s.commit(marked(firstCommit("1"), "shop.fulfilment", "orders", "e1"))
	s.stored(one)
	two := commitAfter(one)
	two.Instance.Version, two.Instance.StateVersion, two.Instance.Wake = 4, 3, storeEpoch.Add(time.Hour)
	two.Instance.Progress, two.Entry.Note = json.RawMessage(`{"order":["reserve"]}`), "a note"
	s.commit(two)
	three := marked(commitAfter(two), "shop.fulfilment", "stock", "e2")
	three.Instance.Status, three.Instance.Error, three.Instance.Wake = saga.Stuck, "no more attempts", time.Time{}
	s.commit(three)
	s.stored(one, two, three)
	other := s.commit(firstCommit("2"))
	s.stored(other)
	s.stored(one, two, three)
}

func (s *storeSuite) conflict() {
	one := firstCommit("1")
	s.refused(saga.ErrConflict, commitAfter(one))
	s.commit(one)
	s.refused(saga.ErrConflict, one)
	s.refused(saga.ErrConflict, commitAfter(commitAfter(one)))
	two := s.commit(commitAfter(one))
	s.refused(saga.ErrConflict, two)
	s.refused(saga.ErrConflict, one)
	s.stored(one, two)
}

func (s *storeSuite) conflictWritesNothing() {
	one := s.commit(firstCommit("1"))
	event := func(c saga.Commit) saga.Commit { return marked(c, "shop.fulfilment", "stock", "e1") }
	s.refused(saga.ErrConflict, event(one))
	s.refused(saga.ErrConflict, event(commitAfter(commitAfter(one))))
	s.refused(saga.ErrConflict, event(commitAfter(firstCommit("2"))))
	s.wantPublished()
	s.stored(one)
	if entries, err := s.History(s.Context(), storeSaga, "2"); err != nil || len(entries) > 0 {
		s.broken("the history of what is not there: %v, %v", entries, err)
	}
	two := s.commit(event(commitAfter(one)))
	s.stored(one, two)
	s.wantPublished("1 by e1")
}

func (s *storeSuite) duplicate() {
	c := s.commit(marked(firstCommit("1"), "shop.fulfilment", "stock", "e1"))
	s.refused(saga.ErrDuplicate, marked(commitAfter(c), "shop.fulfilment", "stock", "e1"))
	for _, mark := range [][3]string{
		{"shop.fulfilment", "stock", "e2"}, {"shop.fulfilment", "payments", "e1"}, {"shop.returns", "stock", "e1"},
		{"shop.fulfilment", "stock", "E1"}, {"shop.fulfilment", "", "e1"}, {"shop.fulfilment", "stock", "\xff e1"},
	} {
		c = s.commit(marked(commitAfter(c), mark[0], mark[1], mark[2]))
		s.refused(saga.ErrDuplicate, marked(commitAfter(c), mark[0], mark[1], mark[2]))
	}
	s.refused(saga.ErrDuplicate, marked(firstCommit("2"), "shop.fulfilment", "stock", "e1"))
}

func (s *storeSuite) duplicateWritesNothing() {
	one := s.commit(marked(firstCommit("1"), "shop.fulfilment", "stock", "e1"))
	for range 2 {
		s.refused(saga.ErrDuplicate, marked(commitAfter(one), "shop.fulfilment", "stock", "e1"))
		s.refused(saga.ErrDuplicate, marked(firstCommit("2"), "shop.fulfilment", "stock", "e1"))
	}
	s.stored(one)
	s.wantPublished("1 by e1")
	if _, err := s.Load(s.Context(), storeSaga, "2"); !errors.Is(err, saga.ErrNoInstance) {
		s.broken("Load: %v", err)
	}
	two := s.commit(marked(commitAfter(one), "shop.fulfilment", "stock", "e2"))
	s.stored(one, two)
}

func (s *storeSuite) duplicateBeforeConflict() {
	one := marked(firstCommit("1"), "shop.fulfilment", "stock", "e1")
	s.commit(one)
	s.commit(commitAfter(one))
	s.refused(saga.ErrDuplicate, marked(firstCommit("1"), "shop.fulfilment", "stock", "e1"))
	s.refused(saga.ErrDuplicate, marked(commitAfter(one), "shop.fulfilment", "stock", "e1"))
}

func (s *storeSuite) noEvent() {
	c := firstCommit("1")
	c.Consumer, c.Source = "shop.fulfilment", "stock"
	for range 3 {
		s.commit(c)
		c = commitAfter(c)
		c.Consumer, c.Source = "shop.fulfilment", "stock"
	}
}

// atOnce commits side by side and returns how many were committed. The others
// must fail by one of errs.
func (s *storeSuite) atOnce(commits []saga.Commit, errs ...error) (committed int) {
	s.Helper()
	results := make([]error, len(commits))
	var wg sync.WaitGroup
	for n, c := range commits {
		wg.Go(func() { results[n] = s.Commit(s.Context(), c) })
	}
	wg.Wait()
	for n, err := range results {
		switch {
		case err == nil:
			committed++
		case !slices.ContainsFunc(errs, func(want error) bool { return errors.Is(err, want) }):
			s.broken("commit %d: %v", n, err)
		}
	}
	return committed
}

const storeContenders = 8

func (s *storeSuite) oneWinner() {
	var won []string
	c := firstCommit("1")
	for round := range 5 {
		commits := make([]saga.Commit, storeContenders)
		for n := range commits {
			commits[n] = marked(c, "shop.fulfilment", "stock", fmt.Sprintf("e%d-%d", round, n))
			commits[n].Entry.Note = commits[n].EventID
		}
		if n := s.atOnce(commits, saga.ErrConflict); n != 1 {
			s.broken("round %d: %d were committed", round, n)
		}
		entries, err := s.History(s.Context(), storeSaga, "1")
		s.ok(err)
		if len(entries) != round+1 {
			s.broken("round %d: the history has %d entries", round, len(entries))
		}
		won = append(won, "1 by "+entries[round].Note)
		c = commitAfter(c)
	}
	s.wantPublished(won...)
}

func (s *storeSuite) oneDelivery() {
	c := firstCommit("1")
	for round := range 5 {
		commits := make([]saga.Commit, storeContenders)
		for n := range commits {
			commits[n] = marked(c, "shop.fulfilment", "stock", fmt.Sprint("e", round))
			if n%2 == 1 { // it has seen the other
				commits[n].Instance.Revision++
				commits[n].Entry.Revision++
			}
		}
		if n := s.atOnce(commits, saga.ErrConflict, saga.ErrDuplicate); n != 1 {
			s.broken("round %d: %d were committed", round, n)
		}
		if got := len(s.published()); got != round+1 {
			s.broken("round %d: %d messages were published", round, got)
		}
		i, err := s.Load(s.Context(), storeSaga, "1")
		s.ok(err)
		c = commitAfter(saga.Commit{Instance: i})
	}
}

func (s *storeSuite) sideBySide() {
	commits := make([]saga.Commit, storeContenders)
	for n := range commits {
		commits[n] = firstCommit(fmt.Sprint(n))
	}
	for round := range 5 {
		for n := range commits {
			commits[n] = marked(commits[n], "shop.fulfilment", "stock", fmt.Sprintf("e%d-%d", round, n))
		}
		if n := s.atOnce(commits); n != storeContenders {
			s.broken("round %d: %d of %d were committed", round, n, storeContenders)
		}
		for n := range commits {
			commits[n] = commitAfter(commits[n])
		}
	}
	if got := len(s.published()); got != 5*storeContenders {
		s.broken("%d messages were published", got)
	}
}
