package sagatest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/millrace-go/millrace/saga"
)

// listed returns the ids of a list.
func (s *storeSuite) listed(q saga.Query) (ids []string) {
	s.Helper()
	q.Saga = storeSaga
	all, err := s.List(s.Context(), q)
	s.ok(err)
	for _, i := range all {
		ids = append(ids, i.ID)
	}
	return ids
}

func (s *storeSuite) wantListed(q saga.Query, want ...string) {
	s.Helper()
	if got := s.listed(q); !slices.Equal(got, want) {
		s.broken("List of %+v is %q, want %q", q, got, want)
	}
}

var allStatuses = []saga.Status{saga.Running, saga.Compensating, saga.Completed, saga.Compensated, saga.Stuck}

// add commits an instance that was changed n milliseconds after the epoch.
func (s *storeSuite) add(id string, status saga.Status, n int) saga.Commit {
	s.Helper()
	c := firstCommit(id)
	c.Instance.Status, c.Instance.Updated = status, storeEpoch.Add(time.Duration(n)*time.Millisecond)
	return s.commit(c)
}

func (s *storeSuite) listStatus() {
	var all []saga.Commit
	for n := range 10 {
		all = append(all, s.add(fmt.Sprint(n), allStatuses[n%len(allStatuses)], n))
	}
	s.commit(firstCommitOf("other", "other"))
	s.wantListed(saga.Query{}, "9", "8", "7", "6", "5", "4", "3", "2", "1", "0")
	s.wantListed(saga.Query{Status: []saga.Status{saga.Stuck}}, "9", "4")
	s.wantListed(saga.Query{Status: []saga.Status{saga.Running, saga.Compensating, saga.Running}}, "6", "5", "1", "0")
	s.wantListed(saga.Query{Status: []saga.Status{"unknown"}})
	found, err := s.List(s.Context(), saga.Query{Saga: storeSaga, Status: allStatuses[:1]})
	s.ok(err)
	s.same(found[0], all[5].Instance)
	s.same(found[1], all[0].Instance)
	ended := commitAfter(all[9])
	ended.Instance.Status = saga.Compensated
	s.commit(ended)
	s.wantListed(saga.Query{Status: []saga.Status{saga.Stuck}}, "4")
	s.wantListed(saga.Query{Status: []saga.Status{saga.Compensated}}, "9", "8", "3")
}

func (s *storeSuite) listPrefix() {
	ids := []string{"order-1", "order-10", "order-2", "ORDER-1", "order_1", "orderx1", "ord%", "ord\\", "ordé", "\xff", "\xff\xffa"}
	for n, id := range ids {
		s.add(id, allStatuses[n%2], n)
	}
	s.wantListed(saga.Query{ID: "order-1"}, "order-10", "order-1")
	s.wantListed(saga.Query{ID: "order-"}, "order-2", "order-10", "order-1")
	s.wantListed(saga.Query{ID: "order_"}, "order_1")
	s.wantListed(saga.Query{ID: "ord%"}, "ord%")
	s.wantListed(saga.Query{ID: "ord\\"}, "ord\\")
	s.wantListed(saga.Query{ID: "ord\xc3"}, "ordé")
	s.wantListed(saga.Query{ID: "OR"}, "ORDER-1")
	s.wantListed(saga.Query{ID: "\xff"}, "\xff\xffa", "\xff")
	s.wantListed(saga.Query{ID: "\xff\xff"}, "\xff\xffa")
	s.wantListed(saga.Query{ID: "nothing"})
	s.wantListed(saga.Query{ID: "order-", Status: allStatuses[:1]}, "order-2", "order-1")
	s.wantListed(saga.Query{ID: "order-", Limit: 2}, "order-2", "order-10")
	s.wantListed(saga.Query{ID: "order-", Before: storeEpoch.Add(2 * time.Millisecond)}, "order-10", "order-1")
}

func (s *storeSuite) listOrder() {
	const n = 103
	want := make([]string, n)
	for at := range n {
		id := fmt.Sprint(at * 37 % n)
		s.add(id, allStatuses[at%len(allStatuses)], at)
		want[n-1-at] = id
	}
	s.wantListed(saga.Query{}, want[:100]...)
	s.wantListed(saga.Query{Limit: 1000}, want...)
	s.wantListed(saga.Query{Limit: 1_000_000}, want...)
	s.wantListed(saga.Query{Limit: 7}, want[:7]...)
	s.wantListed(saga.Query{Limit: 3, Before: storeEpoch.Add((n - 1) * time.Millisecond)}, want[1:4]...)
	s.wantListed(saga.Query{Before: storeEpoch.Add(2 * time.Millisecond)}, want[n-2:]...)
	s.wantListed(saga.Query{Before: storeEpoch.Add(2*time.Millisecond + 1)}, want[n-3:]...)
	s.wantListed(saga.Query{Before: storeEpoch})
	s.add("same", saga.Running, 0)
	oldest := s.listed(saga.Query{Before: storeEpoch.Add(time.Millisecond)})
	slices.Sort(oldest)
	if !slices.Equal(oldest, []string{"0", "same"}) {
		s.broken("List of two instances of one time is %q", oldest)
	}
}

func (s *storeSuite) listRecoverable() {
	due := func(n int) time.Time { return storeEpoch.Add(time.Hour + time.Duration(n)*time.Millisecond) }
	var first saga.Commit
	for n, id := range []string{"a0", "a1", "b2", "b3", "b4"} {
		c := firstCommit(id)
		c.Instance.Status, c.Instance.RecoverAt = allStatuses[n%2], due(n)
		if n == 0 {
			first = c
		}
		s.commit(c)
	}
	s.add("never", saga.Running, 0)
	s.add("ended", saga.Completed, 0)
	s.wantListed(saga.Query{RecoverableAt: due(-1)})
	s.wantListed(saga.Query{RecoverableAt: due(2)}, "b2", "a1", "a0")
	s.wantListed(saga.Query{RecoverableAt: due(9), Limit: 2}, "b4", "b3")
	s.wantListed(saga.Query{RecoverableAt: due(9), Limit: 2, Before: storeEpoch, BeforeID: "b3"}, "b2", "a1")
	s.wantListed(saga.Query{RecoverableAt: due(9), Status: []saga.Status{saga.Compensating, saga.Stuck}}, "b3", "a1")
	s.wantListed(saga.Query{RecoverableAt: due(9), Status: []saga.Status{saga.Completed}})
	s.wantListed(saga.Query{RecoverableAt: due(2), ID: "a"}, "a1", "a0")
	s.wantListed(saga.Query{RecoverableAt: due(0), ID: "a"}, "a0")
	later := commitAfter(first)
	later.Instance.RecoverAt = due(1000)
	s.commit(later)
	s.wantListed(saga.Query{RecoverableAt: due(1)}, "a1")
	ended := commitAfter(later)
	ended.Instance.Status, ended.Instance.RecoverAt = saga.Completed, time.Time{}
	s.commit(ended)
	s.wantListed(saga.Query{RecoverableAt: due(1000)}, "b4", "b3", "b2", "a1")
}

func (s *storeSuite) listPages() {
	const n = 50
	for id := range n {
		s.add(fmt.Sprintf("x%02d", id), allStatuses[id%2], id/20) // many of one time
	}
	for _, q := range []saga.Query{{Limit: 7}, {Limit: 7, ID: "x"}, {Limit: 10, Status: allStatuses[:1]}} {
		q.Saga = storeSaga
		var ids []string
		for page := range n {
			all, err := s.List(s.Context(), q)
			s.ok(err)
			for _, i := range all {
				ids = append(ids, i.ID)
				q.Before, q.BeforeID = i.Updated, i.ID
			}
			if len(all) < q.Limit {
				break
			}
			if page == n-1 {
				s.broken("the pages of %+v do not end", q)
			}
		}
		q.Limit, q.Before, q.BeforeID = n, time.Time{}, ""
		if want := s.listed(q); !slices.Equal(ids, want) {
			s.broken("the pages of %+v have %q, want %q", q, ids, want)
		}
	}
}

func (s *storeSuite) count() {
	for n := range 12 {
		s.add(fmt.Sprint(n), allStatuses[n%len(allStatuses)], n)
	}
	s.commit(firstCommitOf("other", "1"))
	want := map[saga.Status]int64{saga.Running: 3, saga.Compensating: 3, saga.Completed: 2, saga.Compensated: 2, saga.Stuck: 2}
	got, err := s.Count(s.Context(), storeSaga)
	s.ok(err)
	if !maps.Equal(got, want) {
		s.broken("Count is %v, want %v", got, want)
	}
}

func (s *storeSuite) pin() {
	pinned := func(name string, version int, fingerprint, want string) {
		s.Helper()
		got, err := s.Pin(s.Context(), name, version, fingerprint)
		s.ok(err)
		if got != want {
			s.broken("Pin of %s version %d is %q, want %q", name, version, got, want)
		}
	}
	pinned(storeSaga, 1, "a", "a")
	pinned(storeSaga, 1, "b", "a")
	pinned(storeSaga, 2, "b", "b")
	pinned("other", 1, "c", "c")
	pinned(storeSaga, 1, "c", "a")
	results := make([]string, storeContenders)
	errs := make([]error, storeContenders)
	var wg sync.WaitGroup
	for n := range storeContenders {
		wg.Go(func() { results[n], errs[n] = s.Pin(s.Context(), storeSaga, 3, fmt.Sprint("f", n)) })
	}
	wg.Wait()
	s.ok(errors.Join(errs...))
	if len(slices.Compact(slices.Clone(results))) != 1 {
		s.broken("concurrent Pins are %q", results)
	}
	pinned(storeSaga, 3, "late", results[0])
}
