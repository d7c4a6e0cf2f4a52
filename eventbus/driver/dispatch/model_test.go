package dispatch

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// model is the dispatcher as one would explain it on a whiteboard: per lane a
// list of records, each with a status.
type model struct {
	lanes []*modelLane
	limit int
	turns int
}

type modelLane struct {
	records []*modelRecord
	revoked bool
}

type modelRecord struct {
	key      string
	position int64
	attempt  int
	turn     int    // rank among the records of its key
	status   string // waiting, running, delayed (the key waits), deferred (it does not), done, dropped
	dueAt    time.Time
}

func (m *model) held() (n int) {
	for _, l := range m.lanes {
		for _, r := range l.records {
			if r.status == "waiting" || r.status == "running" || r.status == "delayed" || r.status == "deferred" {
				n++
			}
		}
	}
	return n
}

func (m *model) nextTurn() int {
	m.turns++
	return m.turns
}

// ready: waiting, and no earlier record of its key is unfinished.
func (m *model) ready() (all []*modelRecord) {
	for _, l := range m.lanes {
		busy := map[string]bool{}
		inTurn := slices.SortedFunc(slices.Values(l.records), func(a, b *modelRecord) int { return a.turn - b.turn })
		for _, r := range inTurn {
			if r.status == "waiting" && !busy[r.key] {
				all = append(all, r)
			}
			if r.key != "" && r.status != "done" && r.status != "deferred" {
				busy[r.key] = true
			}
		}
	}
	return all
}

func (l *modelLane) watermark() (mark int64, ok bool) {
	for _, r := range l.records {
		if r.status != "done" {
			break
		}
		mark, ok = r.position, true
	}
	return mark, ok
}

// Every reachable state of the dispatcher agrees with the model: what may run,
// what may not, how much is held, how far each watermark is.
func TestDispatcherAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) { checkModel(t, rt) })
	})
}

func checkModel(t *testing.T, rt *rapid.T) {
	m := &model{limit: rapid.IntRange(1, 12).Draw(rt, "limit")}
	d := New[*modelRecord](Config{Limit: m.limit})
	var lanes []*Lane[*modelRecord]
	var inHand []*hand[*modelRecord]
	position := int64(0)
	addLane := func() {
		lanes = append(lanes, d.Lane())
		m.lanes = append(m.lanes, &modelLane{})
	}
	addLane()

	// begin notes that the handler of an entry is called.
	begin := func(e *entry[*modelRecord]) {
		require.Contains(t, m.ready(), e.Record)
		require.Equal(t, e.Record.attempt, e.Attempt)
		e.Record.status = "running"
	}
	take := func(max int, whole bool) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		h := d.join(whole)
		done := make(chan struct{})
		go func() { d.next(ctx, h, max); close(done) }()
		synctest.Wait()
		select {
		case <-done:
		default: // nothing is ready
			require.Empty(t, m.ready())
			stop()
			d.mu.Lock()
			d.work.Broadcast()
			d.mu.Unlock()
			<-done
			d.leave(h)
			return
		}
		require.NotEmpty(t, h.entries)
		require.LessOrEqual(t, len(h.entries), min(max, len(m.ready())))
		inHand = append(inHand, h)
		if !whole {
			begin(h.entries[0])
			return
		}
		if !slices.ContainsFunc(inHand, func(h *hand[*modelRecord]) bool { return !h.whole }) {
			require.Len(t, h.entries, min(max, len(m.ready())))
		}
		for _, e := range h.entries {
			begin(e)
		}
	}
	settled := 0
	// ends is what happens in the model when the handler of e returns.
	ends := func(e *entry[*modelRecord], retry, letPass bool, after time.Duration) {
		r, lane := e.Record, m.lanes[slices.Index(lanes, e.lane)]
		switch {
		case !retry:
			r.status = "done"
		case lane.revoked:
			r.status = "dropped"
		case after > 0 && letPass:
			r.status, r.dueAt = "deferred", time.Now().Add(after)
			r.attempt++
		case after > 0:
			r.status, r.dueAt = "delayed", time.Now().Add(after)
			r.attempt++
		default:
			r.status = "waiting"
			r.attempt++
		}
		switch {
		case letPass:
			e.Defer(after)
		case retry:
			e.Retry(after)
		}
	}
	settle := func(retry, letPass bool, after time.Duration) {
		if settled++; after > 0 {
			after += time.Duration(settled) // no two become due at the same time
		}
		i := rapid.IntRange(0, len(inHand)-1).Draw(rt, "which")
		h := inHand[i]
		if h.whole {
			for _, e := range h.entries {
				ends(e, retry, letPass, after)
				after += min(after, 1)
				settled++
			}
			h.finish()
		} else {
			done, _ := h.load()
			ends(h.entries[done], retry, letPass, after)
			if retry {
				d.mu.Lock()
				d.recall(h)
				d.mu.Unlock()
			}
			if e := h.step(); e != nil {
				begin(e)
				return
			}
		}
		inHand = slices.Delete(inHand, i, i+1)
		require.False(t, d.leave(h))
	}

	rt.Repeat(map[string]func(*rapid.T){
		"add": func(rt *rapid.T) {
			if m.held() >= m.limit {
				rt.Skip("full")
			}
			i := rapid.IntRange(0, len(lanes)-1).Draw(rt, "lane")
			position += rapid.Int64Range(1, 3).Draw(rt, "gap")
			r := &modelRecord{key: rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(rt, "key"), position: position, attempt: 1, turn: m.nextTurn(), status: "waiting"}
			err := lanes[i].Add(t.Context(), r.key, position, 1, r)
			if m.lanes[i].revoked {
				require.ErrorIs(t, err, ErrRevoked)
				return
			}
			require.NoError(t, err)
			m.lanes[i].records = append(m.lanes[i].records, r)
		},
		"add batch": func(rt *rapid.T) {
			i := rapid.IntRange(0, len(lanes)-1).Draw(rt, "lane")
			var batch []Entry[*modelRecord]
			for range min(rapid.IntRange(1, 4).Draw(rt, "size"), m.limit-m.held()) {
				position++
				r := &modelRecord{key: rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "key"), position: position, attempt: 1, turn: m.nextTurn(), status: "waiting"}
				batch = append(batch, Entry[*modelRecord]{r.key, r.position, 1, r})
			}
			added, err := lanes[i].AddBatch(t.Context(), batch)
			if m.lanes[i].revoked && len(batch) > 0 {
				require.ErrorIs(t, err, ErrRevoked)
				require.Zero(t, added)
				return
			}
			require.NoError(t, err)
			require.Len(t, batch, added)
			for _, e := range batch {
				m.lanes[i].records = append(m.lanes[i].records, e.Record)
			}
		},
		"add when full blocks": func(rt *rapid.T) {
			if m.held() < m.limit || m.lanes[0].revoked {
				rt.Skip("room left")
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorIs(t, lanes[0].Add(ctx, "a", position+1, 1, nil), context.Canceled)
		},
		"take":  func(rt *rapid.T) { take(rapid.IntRange(1, 4).Draw(rt, "max"), rapid.Bool().Draw(rt, "whole")) },
		"check": func(*rapid.T) { d.check() },
		"done": func(rt *rapid.T) {
			if len(inHand) == 0 {
				rt.Skip("nothing runs")
			}
			settle(false, false, 0)
		},
		"retry": func(rt *rapid.T) {
			if len(inHand) == 0 {
				rt.Skip("nothing runs")
			}
			settle(true, rapid.Bool().Draw(rt, "let others pass"), time.Duration(rapid.IntRange(0, 3).Draw(rt, "after"))*time.Second)
		},
		"time passes": func(rt *rapid.T) {
			time.Sleep(time.Second)
			synctest.Wait()
			for _, l := range m.lanes {
				due := slices.SortedFunc(slices.Values(l.records), func(a, b *modelRecord) int { return a.dueAt.Compare(b.dueAt) })
				for _, r := range due {
					if r.dueAt.After(time.Now()) {
						break
					}
					if r.status == "deferred" {
						r.turn = m.nextTurn()
					}
					if r.status == "delayed" || r.status == "deferred" {
						r.status = "waiting"
					}
				}
			}
		},
		"new lane": func(rt *rapid.T) {
			if len(lanes) == 3 {
				rt.Skip("enough")
			}
			addLane()
		},
		"revoke": func(rt *rapid.T) {
			i := rapid.IntRange(0, len(lanes)-1).Draw(rt, "lane")
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if slices.ContainsFunc(m.lanes[i].records, func(r *modelRecord) bool { return r.status == "running" }) {
				rt.Skip("runs")
			}
			require.NoError(t, lanes[i].Revoke(ctx))
			m.lanes[i].revoked = true
			for _, r := range m.lanes[i].records {
				if r.status != "done" {
					r.status = "dropped"
				}
			}
		},
		"": func(*rapid.T) {
			require.Equal(t, m.held(), d.Len())
			for i, l := range lanes {
				mark, ok := l.Watermark()
				wantMark, wantOK := m.lanes[i].watermark()
				require.Equal(t, wantOK, ok)
				require.Equal(t, wantMark, mark)
			}
		},
	})
	for _, h := range inHand {
		d.leave(h)
	}
	for _, l := range lanes { // stops the timers, so that the bubble can end
		require.NoError(t, l.Revoke(t.Context()))
	}
}
