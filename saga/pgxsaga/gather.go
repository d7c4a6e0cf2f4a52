package pgxsaga

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// sideBySide is how many go by themselves at a time. The database writes what is
	// committed side by side to its disk together, so that up to there nothing is won
	// by gathering.
	sideBySide = 16
	// groupEnough is with how many members a group begins: fewer cost less one by one.
	groupEnough = 32
	groupMost   = 128 // members
	groupsMost  = 4   // under way
	// groupPatience is for how long what is under way may hold up others: no statement
	// of a group waits longer for a lock, and what takes longer for other reasons is
	// not waited for.
	groupPatience = 50 * time.Millisecond
)

// gather puts together what callers ask for while much is under way: that waits,
// and is done as a group when there is enough of it. From then on newcomers wait
// for a group, too, until there are too few for another one.
type gather[T any] struct {
	// together does what the members of a group ask for and answers each. Its ctx
	// ends when the last of them has stopped waiting.
	together func(ctx context.Context, members []*member[T])
	limits

	mu      sync.Mutex
	single  int // by themselves under way
	groups  int // under way
	waiting []*member[T]
	running sync.WaitGroup // groups
}

// limits are sideBySide and groupEnough, but for tests.
type limits struct{ singles, enough int }

var usual = limits{sideBySide, groupEnough}

// member is what one caller asks for.
type member[T any] struct {
	item  T
	ctx   context.Context
	group *group // once it is under way
	done  chan struct{}
	turn  bool // it may go by itself
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
		defer g.hold(&g.single)()
		return alone()
	}
	select {
	case <-m.done:
	case <-ctx.Done():
		g.desert(m)
		return context.Cause(ctx)
	}
	switch {
	case m.turn:
		defer g.hold(&g.single)()
		return alone()
	case m.alone:
		return alone()
	}
	return m.err
}

// join returns nil if the caller may go by itself at once.
func (g *gather[T]) join(ctx context.Context, item T) *member[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.groups == 0 && g.single < g.singles {
		g.single++
		return nil
	}
	m := &member[T]{item: item, ctx: ctx, done: make(chan struct{})}
	g.waiting = append(g.waiting, m)
	g.next()
	return m
}

// hold counts something as under way until the function is called that it returns,
// or others have been held up for long enough.
func (g *gather[T]) hold(underWay *int) (end func()) {
	once := sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		*underWay--
		g.next()
	})
	patience := time.AfterFunc(groupPatience, once)
	return func() {
		patience.Stop()
		once()
	}
}

// next has those go that wait, together if they are enough, else one by one.
func (g *gather[T]) next() {
	if len(g.waiting) == 0 {
		return
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(m *member[T]) bool { return m.ctx.Err() != nil })
	for len(g.waiting) >= g.enough && g.groups < groupsMost {
		n := min(len(g.waiting), groupMost)
		g.launch(slices.Clone(g.waiting[:n]))
		g.waiting = slices.Delete(g.waiting, 0, n)
	}
	for len(g.waiting) > 0 && g.groups == 0 && g.single < g.singles {
		m := g.waiting[0]
		g.waiting = slices.Delete(g.waiting, 0, 1)
		g.single++
		m.turn = true
		close(m.done)
	}
}

func (g *gather[T]) launch(members []*member[T]) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(members[0].ctx))
	begun := &group{callers: len(members), cancel: cancel}
	for _, m := range members {
		m.group = begun
	}
	g.groups++
	g.running.Go(func() {
		defer cancel()
		defer g.hold(&g.groups)()
		g.together(ctx, members)
	})
}

// desert takes note that a caller has stopped waiting.
func (g *gather[T]) desert(m *member[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case m.turn:
		g.single--
		g.next()
	case m.group != nil:
		if m.group.callers--; m.group.callers == 0 {
			m.group.cancel()
		}
	}
}

// wait returns when no group is under way.
func (g *gather[T]) wait() { g.running.Wait() }
