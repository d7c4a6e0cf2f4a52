package pgxsaga

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	groupMost  = 128 // members
	groupsMost = 4   // under way
	// groupEnough is with how many members a group begins although another one is
	// under way: a database that commits for many at a time costs a third.
	groupEnough = 32
	// groupPatience is for how long what is under way may hold up others: no statement
	// of a group waits longer for a lock, and what takes longer for other reasons is
	// not waited for.
	groupPatience = 50 * time.Millisecond
)

// gather puts together what callers ask for while something is under way: that
// waits, and is then done as one group. Whoever comes when nothing is under way
// waits for nobody.
type gather[T any] struct {
	// together does what the members of a group ask for and answers each. Its ctx
	// ends when the last of them has stopped waiting.
	together func(ctx context.Context, members []*member[T])
	enough   int // groupEnough

	mu       sync.Mutex
	underWay int
	waiting  []*member[T]
	groups   sync.WaitGroup
}

// member is what one caller asks for.
type member[T any] struct {
	item  T
	ctx   context.Context
	group *group // once it is under way
	done  chan struct{}
	alone bool // the group could not do it
	err   error
}

func (m *member[T]) answer(err error) { m.err = err; close(m.done) }

// leave has the member's caller do by itself what it asks for.
func (m *member[T]) leave() { m.alone = true; close(m.done) }

// group counts the callers that wait for it.
type group struct {
	callers int
	cancel  context.CancelFunc
}

// do has item done: by alone, in this goroutine, or together with others. If ctx
// ends it may have been done or not.
func (g *gather[T]) do(ctx context.Context, item T, alone func() error) error {
	m := g.join(ctx, item)
	if m == nil {
		defer g.hold()()
		return alone()
	}
	select {
	case <-m.done:
	case <-ctx.Done():
		g.desert(m)
		return context.Cause(ctx)
	}
	if m.alone {
		return alone()
	}
	return m.err
}

// join returns nil if nothing is under way; the caller is, then.
func (g *gather[T]) join(ctx context.Context, item T) *member[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.underWay == 0 {
		g.underWay++
		return nil
	}
	m := &member[T]{item: item, ctx: ctx, done: make(chan struct{})}
	g.waiting = append(g.waiting, m)
	g.start()
	return m
}

// hold ends being under way when the function is called that it returns, or when
// others have been held up for long enough.
func (g *gather[T]) hold() (end func()) {
	once := sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.underWay--
		g.start()
	})
	patience := time.AfterFunc(groupPatience, once)
	return func() {
		patience.Stop()
		once()
	}
}

// start begins a group if it is time for one.
func (g *gather[T]) start() {
	g.waiting = slices.DeleteFunc(g.waiting, func(m *member[T]) bool { return m.ctx.Err() != nil })
	n := min(len(g.waiting), groupMost)
	if n == 0 || g.underWay >= groupsMost || g.underWay > 0 && n < g.enough {
		return
	}
	members := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	ctx, cancel := context.WithCancel(context.WithoutCancel(members[0].ctx))
	begun := &group{callers: n, cancel: cancel}
	for _, m := range members {
		m.group = begun
	}
	g.underWay++
	g.groups.Go(func() {
		defer cancel()
		defer g.hold()()
		g.together(ctx, members)
	})
}

// desert takes note that a caller has stopped waiting.
func (g *gather[T]) desert(m *member[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.group == nil {
		return // its context says so
	}
	if m.group.callers--; m.group.callers == 0 {
		m.group.cancel()
	}
}

// wait returns when no group is under way.
func (g *gather[T]) wait() { g.groups.Wait() }
