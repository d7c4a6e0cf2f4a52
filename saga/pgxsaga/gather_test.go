package pgxsaga

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// gathering is a gather of numbers, whose groups wait to be let through.
type gathering struct {
	gather[int]
	pass  chan error
	mu    sync.Mutex
	began [][]int
}

func newGathering() *gathering {
	g := &gathering{pass: make(chan error)}
	g.limits = limits{singles: 2, enough: 3}
	g.together = func(ctx context.Context, members []*member[int]) {
		var items []int
		for _, m := range members {
			items = append(items, m.item)
		}
		g.mu.Lock()
		g.began = append(g.began, items)
		g.mu.Unlock()
		select {
		case err := <-g.pass:
			for _, m := range members {
				if errors.Is(err, errRefused) {
					m.leave()
				} else {
					m.answer(err)
				}
			}
		case <-ctx.Done():
		}
	}
	return g
}

var errRefused = errors.New("refused")

// begin has as much under way as may be, until it is let through.
func (g *gathering) begin() (end func()) {
	alone := make(chan struct{})
	for range g.singles {
		go func() { _ = g.do(context.Background(), 0, func() error { <-alone; return nil }) }()
	}
	synctest.Wait()
	return func() { close(alone); synctest.Wait() }
}

// ask asks for the items from first to last, and returns what they end with.
func (g *gathering) ask(ctx context.Context, first, last int, alone func() error) (ended func() []error) {
	var wg sync.WaitGroup
	errs := make([]error, last-first+1)
	for n := range errs {
		wg.Go(func() { errs[n] = g.do(ctx, first+n, alone) })
		synctest.Wait() // in order
	}
	return func() []error { wg.Wait(); return errs }
}

func never() error { return errors.New("alone") }

func TestWhoComesWhileLittleIsUnderWayWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGathering()
		end := make(chan struct{})
		ended := g.ask(t.Context(), 1, g.singles, func() error { <-end; return errRefused })
		require.Empty(t, g.waiting)
		close(end)
		for _, err := range ended() {
			require.ErrorIs(t, err, errRefused)
		}
		require.Empty(t, g.began)
		require.Zero(t, g.single)
	})
}

func TestTooFewForAGroupGoInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGathering()
		end := g.begin()
		ctx, cancel := context.WithCancel(t.Context())
		gone := g.ask(ctx, 9, 9, never)
		cancel()
		require.ErrorIs(t, gone()[0], context.Canceled)
		ended := g.ask(t.Context(), 1, 2, func() error { return errRefused })
		end()
		require.Equal(t, []error{errRefused, errRefused}, ended())
		synctest.Wait()
		require.Empty(t, g.began)
		require.Zero(t, g.single)
	})
}

func TestWhoComesMeanwhileIsDoneTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGathering()
		end := g.begin()
		ended := g.ask(t.Context(), 1, 3, never)
		require.Equal(t, [][]int{{1, 2, 3}}, g.began)
		end()
		few := g.ask(t.Context(), 4, 5, func() error { return errRefused }) // wait for others, as long as there are groups
		require.Len(t, g.waiting, 2)
		lost := errors.New("connection lost")
		g.pass <- lost
		require.Equal(t, []error{lost, lost, lost}, ended())
		require.Equal(t, []error{errRefused, errRefused}, few())
		require.Len(t, g.began, 1)
	})
}

func TestManyDoNotWaitForOneGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGathering()
		end := g.begin()
		defer end()
		ended := g.ask(t.Context(), 1, groupsMost*g.enough+groupMost+g.enough, never)
		require.Len(t, g.began, groupsMost)
		for range groupsMost + 2 {
			g.pass <- nil
			synctest.Wait()
		}
		var sizes []int
		for _, items := range g.began {
			sizes = append(sizes, len(items))
		}
		require.Equal(t, append(slices.Repeat([]int{g.enough}, groupsMost), groupMost, g.enough), sizes)
		for _, err := range ended() {
			require.NoError(t, err)
		}
	})
}

func TestWhatHangsHoldsUpOthersForAMomentOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGathering()
		end := g.begin()
		start := time.Now()
		ended := g.ask(t.Context(), 1, 2, func() error { return nil })
		require.Equal(t, make([]error, 2), ended())
		require.Equal(t, groupPatience, time.Since(start))
		end()
		synctest.Wait()
		require.Zero(t, g.single)
	})
}

func TestWhatAGroupCanNotDoIsDoneAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGathering()
		end := g.begin()
		defer end()
		ended := g.ask(t.Context(), 1, 3, never)
		g.pass <- errRefused
		for _, err := range ended() {
			require.EqualError(t, err, "alone")
		}
	})
}

func TestAGroupThatNobodyWaitsForEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGathering()
		end := g.begin()
		defer end()
		ctx, cancel := context.WithCancel(t.Context())
		other, cancelOther := context.WithCancel(t.Context())
		gone, giveUp := context.WithCancel(t.Context())
		before := g.ask(gone, 9, 9, never)
		giveUp()
		require.ErrorIs(t, before()[0], context.Canceled)
		first, second := g.ask(ctx, 1, 2, never), g.ask(other, 3, 3, never)
		cancel()
		require.ErrorIs(t, first()[0], context.Canceled)
		synctest.Wait()
		require.Equal(t, [][]int{{1, 2, 3}}, g.began)
		require.Equal(t, 1, g.groups)
		cancelOther()
		require.ErrorIs(t, second()[0], context.Canceled)
		g.wait()
		require.Zero(t, g.groups)
	})
}
