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
}

type modelLane struct {
	records []*modelRecord
	revoked bool
}

type modelRecord struct {
	key      string
	position int64
	attempt  int
	status   string // waiting, running, delayed, done, dropped
	dueAt    time.Time
}

func (m *model) held() (n int) {
	for _, l := range m.lanes {
		for _, r := range l.records {
			if r.status == "waiting" || r.status == "running" || r.status == "delayed" {
				n++
			}
		}
	}
	return n
}

// ready: waiting, and no earlier record of its key is unfinished.
func (m *model) ready() (all []*modelRecord) {
	for _, l := range m.lanes {
		busy := map[string]bool{}
		for _, r := range l.records {
			if r.status == "waiting" && !busy[r.key] {
				all = append(all, r)
			}
			if r.key != "" && r.status != "done" {
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
	var inHand []*entry[*modelRecord]
	position := int64(0)
	addLane := func() {
		lanes = append(lanes, d.Lane())
		m.lanes = append(m.lanes, &modelLane{})
	}
	addLane()

	take := func(max int) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var got []*entry[*modelRecord]
		done := make(chan struct{})
		go func() { got = d.next(ctx, nil, max); close(done) }()
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
			return
		}
		require.Len(t, got, min(max, len(m.ready())))
		ready := m.ready()
		for _, e := range got {
			require.Contains(t, ready, e.Record)
			require.Equal(t, e.Record.attempt, e.Attempt)
			e.Record.status = "running"
			inHand = append(inHand, e)
		}
	}
	settle := func(retry bool, after time.Duration) {
		i := rapid.IntRange(0, len(inHand)-1).Draw(rt, "which")
		e := inHand[i]
		inHand = slices.Delete(inHand, i, i+1)
		r, lane := e.Record, m.lanes[slices.Index(lanes, e.lane)]
		switch {
		case !retry:
			r.status = "done"
		case lane.revoked:
			r.status = "dropped"
		case after > 0:
			r.status, r.dueAt = "delayed", time.Now().Add(after)
			r.attempt++
		default:
			r.status = "waiting"
			r.attempt++
		}
		if retry {
			e.Retry(after)
		}
		d.mu.Lock()
		d.settle([]*entry[*modelRecord]{e})
		d.mu.Unlock()
	}

	rt.Repeat(map[string]func(*rapid.T){
		"add": func(rt *rapid.T) {
			if m.held() >= m.limit {
				rt.Skip("full")
			}
			i := rapid.IntRange(0, len(lanes)-1).Draw(rt, "lane")
			position += rapid.Int64Range(1, 3).Draw(rt, "gap")
			r := &modelRecord{key: rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(rt, "key"), position: position, attempt: 1, status: "waiting"}
			err := lanes[i].Add(t.Context(), r.key, position, 1, r)
			if m.lanes[i].revoked {
				require.ErrorIs(t, err, ErrRevoked)
				return
			}
			require.NoError(t, err)
			m.lanes[i].records = append(m.lanes[i].records, r)
		},
		"add when full blocks": func(rt *rapid.T) {
			if m.held() < m.limit || m.lanes[0].revoked {
				rt.Skip("room left")
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorIs(t, lanes[0].Add(ctx, "a", position+1, 1, nil), context.Canceled)
		},
		"take": func(rt *rapid.T) { take(rapid.IntRange(1, 4).Draw(rt, "max")) },
		"done": func(rt *rapid.T) {
			if len(inHand) == 0 {
				rt.Skip("nothing runs")
			}
			settle(false, 0)
		},
		"retry": func(rt *rapid.T) {
			if len(inHand) == 0 {
				rt.Skip("nothing runs")
			}
			settle(true, time.Duration(rapid.IntRange(0, 3).Draw(rt, "after"))*time.Second)
		},
		"time passes": func(rt *rapid.T) {
			time.Sleep(time.Second)
			synctest.Wait()
			for _, l := range m.lanes {
				for _, r := range l.records {
					if r.status == "delayed" && !r.dueAt.After(time.Now()) {
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
			busy := slices.ContainsFunc(inHand, func(e *entry[*modelRecord]) bool { return e.lane == lanes[i] })
			if busy {
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
	for _, l := range lanes { // stops the timers, so that the bubble can end
		for _, e := range inHand {
			if e.lane == l {
				d.mu.Lock()
				d.settle([]*entry[*modelRecord]{e})
				d.mu.Unlock()
			}
		}
		require.NoError(t, l.Revoke(t.Context()))
	}
}
