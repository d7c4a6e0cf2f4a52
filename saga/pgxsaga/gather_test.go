package pgxsaga

import (
	"context"
	"errors"
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
	began [][]int
}

func newGathering() *gathering {
	g := &gathering{pass: make(chan error)}
	g.enough = groupEnough
	g.together = func(ctx context.Context, members []*member[int]) {
		var items []int
		for _, m := range members {
			items = append(items, m.item)
		}
		g.began = append(g.began, items)
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

// begin has something under way until it is let through.
func (g *gathering) begin() (end func()) {
	alone := make(chan struct{})
	go func() { _ = g.do(context.Background(), 0, func() error { <-alone; return nil }) }()
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

func TestWhoIsAloneWaitsForNobody(t *testing.T) {
	g := newGathering()
	for range 3 {
		require.ErrorIs(t, g.do(t.Context(), 1, func() error { return errRefused }), errRefused)
	}
	require.Empty(t, g.began)
}

func TestWhoComesMeanwhileIsDoneTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGathering()
		end := g.begin()
		ended := g.ask(t.Context(), 1, 3, never)
		require.Empty(t, g.began)
		end()
		require.Equal(t, [][]int{{1, 2, 3}}, g.began)
		more := g.ask(t.Context(), 4, 5, never)
		g.pass <- nil
		require.Equal(t, make([]error, 3), ended())
		synctest.Wait()
		require.Equal(t, [][]int{{1, 2, 3}, {4, 5}}, g.began)
		lost := errors.New("connection lost")
		g.pass <- lost
		require.Equal(t, []error{lost, lost}, more())
	})
}

func TestManyDoNotWaitForOneGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGathering()
		end := g.begin()
		ended := g.ask(t.Context(), 1, groupsMost*groupEnough+groupMost, never)
		require.Len(t, g.began, groupsMost-1)
		for range groupsMost - 1 {
			require.Len(t, g.began[0], groupEnough)
			g.pass <- nil
			synctest.Wait()
		}
		end()
		for range 2 {
			g.pass <- nil
			synctest.Wait()
		}
		for _, items := range g.began {
			require.LessOrEqual(t, len(items), groupMost)
		}
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
		ended := g.ask(t.Context(), 1, 2, never)
		g.pass <- nil
		require.Equal(t, make([]error, 2), ended())
		require.Equal(t, groupPatience, time.Since(start))
		end()
		require.Zero(t, g.underWay)
	})
}

func TestWhatAGroupCanNotDoIsDoneAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGathering()
		end := g.begin()
		ended := g.ask(t.Context(), 1, 2, never)
		end()
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
		ctx, cancel := context.WithCancel(t.Context())
		other, cancelOther := context.WithCancel(t.Context())
		gone, giveUp := context.WithCancel(t.Context())
		before := g.ask(gone, 9, 9, never)
		giveUp()
		require.ErrorIs(t, before()[0], context.Canceled)
		first, second := g.ask(ctx, 1, 1, never), g.ask(other, 2, 2, never)
		end()
		cancel()
		require.ErrorIs(t, first()[0], context.Canceled)
		synctest.Wait()
		require.Equal(t, [][]int{{1, 2}}, g.began)
		require.Equal(t, 1, g.underWay)
		cancelOther()
		require.ErrorIs(t, second()[0], context.Canceled)
		g.wait()
		require.Zero(t, g.underWay)
	})
}
