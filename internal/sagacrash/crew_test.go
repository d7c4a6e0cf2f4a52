package sagacrash

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/tail"
)

// crew is the processes of the services.
type crew struct {
	t       *testing.T
	members []*member
	kills   map[string]int // by service
	tally   tally
}

// member is one process, in one of its lives.
type member struct {
	place
	cmd   *exec.Cmd
	stdin io.Closer
	log   *tail.Buffer
	work  *work
}

func newCrew(t *testing.T, places []place) *crew {
	c := &crew{t: t, kills: map[string]int{}, tally: tally{taken: map[string]bool{}}}
	for _, at := range places {
		c.members = append(c.members, c.launch(at))
	}
	t.Cleanup(func() {
		for _, m := range c.members { // those that stop has not ended
			_ = m.cmd.Process.Kill()
			_ = m.cmd.Wait()
		}
	})
	return c
}

func (c *crew) launch(at place) *member {
	text, err := json.Marshal(at)
	if err != nil {
		panic(err)
	}
	m := &member{place: at, cmd: exec.Command(os.Args[0]), log: &tail.Buffer{}, work: &work{tally: &c.tally}}
	m.cmd.Env = append(os.Environ(), processEnv+"="+string(text))
	m.cmd.Stderr, m.cmd.Stdout = m.log, m.work
	if m.stdin, err = m.cmd.StdinPipe(); err == nil {
		err = m.cmd.Start()
	}
	if err != nil {
		panic(fmt.Sprintf("start a process of %s: %v", at.Service, err))
	}
	return m
}

// harass kills processes and starts them again, at most so many times. Most of
// them have handled something in their life: to kill none but those that still
// wait for the broker would prove little.
func (c *crew) harass(ctx context.Context, every time.Duration, most int) {
	for n := 0; n < most && pause(ctx, every/2+rand.N(every)); {
		i := rand.N(len(c.members))
		m := c.members[i]
		if !m.work.done.Load() && rand.N(10) > 0 {
			continue
		}
		_ = m.cmd.Process.Kill()
		if err := m.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			c.t.Errorf("a process of %s ended by itself: %v\n%s", m.Service, err, m.log)
		}
		n++
		c.kills[m.Service]++
		c.members[i] = c.launch(m.place)
	}
}

// stop ends the processes in an orderly way.
func (c *crew) stop() {
	c.t.Helper()
	for _, m := range c.members {
		require.NoError(c.t, m.stdin.Close())
	}
	for _, m := range c.members {
		impatient := time.AfterFunc(patience, func() { _ = m.cmd.Process.Kill() })
		require.NoError(c.t, m.cmd.Wait(), "%s\n%s", m.Service, m.log)
		impatient.Stop()
	}
}

func (c *crew) logs() string {
	var b strings.Builder
	for _, m := range c.members {
		fmt.Fprintf(&b, "%s:\n%s\n", m.Service, m.log)
	}
	return b.String()
}

// tally adds up what all processes report.
type tally struct {
	mu                              sync.Mutex
	taken                           map[string]bool // events
	repeated, conflicts, duplicates int
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("%d events, handled %d times more, %d duplicates and %d conflicts at the store", len(t.taken), t.repeated, t.duplicates, t.conflicts)
}

func (t *tally) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, taken := strings.CutPrefix(line, reportTaken)
	switch {
	case taken && t.taken[id]:
		t.repeated++
	case taken:
		t.taken[id] = true
	case line == reportConflict:
		t.conflicts++
	case line == reportDuplicate:
		t.duplicates++
	}
}

// work reads what a process reports.
type work struct {
	tally *tally
	rest  []byte
	done  atomic.Bool // some
}

func (w *work) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		w.rest = rest
		w.tally.add(string(line))
		if string(line) == reportHandled {
			w.done.Store(true)
		}
	}
}

// pause waits, and reports false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
