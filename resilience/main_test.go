package resilience

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

// Each state machine is checked for so many steps, against its model and against
// those of other libraries.
const (
	modelSteps = 100_000
	peerSteps  = 25_000
)

// checkModel has play take random steps, each time in a bubble of its own, until
// there were enough in all. rapid prints the seed of a failure and shrinks its steps.
func checkModel[S any](t *testing.T, enough int, plan func(*rapid.T) S, play func(S) (steps int, err error)) {
	t.Helper()
	for steps := 0; steps < enough && !t.Failed(); {
		rapid.Check(t, func(rt *rapid.T) {
			s := plan(rt)
			var n int
			var err error
			synctest.Test(t, func(*testing.T) { n, err = play(s) })
			if steps += n; err != nil {
				rt.Fatal(err)
			}
		})
	}
}

// stepsOf draws a list of steps that is long, since interesting states are far
// from the first; play stops at the first step that goes wrong.
func stepsOf[S any](step func(*rapid.T) S) *rapid.Generator[[]S] {
	return rapid.SliceOfN(rapid.Custom(step), 250, 500)
}

// returning is a function that returns err.
func returning(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// events collects events.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) observe(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func (e *events) kinds() []EventKind {
	e.mu.Lock()
	defer e.mu.Unlock()
	var kinds []EventKind
	for _, event := range e.all {
		kinds = append(kinds, event.Kind)
	}
	return kinds
}

// errWithoutTurn is a rejection by a policy further in.
var errWithoutTurn = &RejectedError{Reason: ErrBulkheadFull}

// underWay is a call that a test ends when it likes.
type underWay struct {
	begun  chan struct{} // closed when the function is called
	finish chan error
	result chan error
	cancel context.CancelFunc
}

// begin calls p in another goroutine and waits until the call is running, waits
// or has ended. It must be called in a bubble.
func begin(ctx context.Context, p Policy) *underWay {
	u := &underWay{begun: make(chan struct{}), finish: make(chan error, 1), result: make(chan error, 1)}
	ctx, u.cancel = context.WithCancel(ctx)
	go func() {
		defer u.cancel()
		u.result <- p.Do(ctx, func(context.Context) error {
			close(u.begun)
			return <-u.finish
		})
	}()
	synctest.Wait()
	return u
}

// running reports whether the function is or was running.
func (u *underWay) running() bool {
	select {
	case <-u.begun:
		return true
	default:
		return false
	}
}

// end makes the function return err and returns what the call returned.
func (u *underWay) end(err error) error {
	u.finish <- err
	return <-u.result
}

// goroutines are the stacks of all goroutines.
func goroutines() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}
