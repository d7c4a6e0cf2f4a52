package outboxload

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/tail"
	"github.com/millrace-go/millrace/outbox"
)

const relayEnv = "MILLRACE_OUTBOX_LOAD_RELAY"

// orders is what a relay's process is told.
type orders struct{ Dialect, Driver, DSN, Broker string }

// lease is short, so that others take over between two kills.
const lease = time.Second

// relayMain is the process of a relay. It ends when its standard input does, as
// it does when the test's process is gone.
func relayMain() bool {
	text := os.Getenv(relayEnv)
	if text == "" {
		return false
	}
	var o orders
	check(json.Unmarshal([]byte(text), &o))
	db, err := sql.Open(o.Driver, o.DSN)
	check(err)
	defer db.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	dialects := map[string]dialect.Dialect{"sqlite": outbox.SQLite, "postgres": outbox.Postgres, "mysql": outbox.MySQL}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	box := outbox.New(db, dialects[o.Dialect], outbox.Logger(log))
	check(box.Relay(newClient(o.Broker), outbox.Lease(lease), outbox.Workers(8)).Run(ctx))
	return true
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// crew is the processes of the relays.
type crew struct {
	*load
	members            []*member
	kills, activeKills int
}

type member struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   *tail.Buffer
}

func newCrew(l *load) *crew {
	c := &crew{load: l}
	for range l.relays {
		c.members = append(c.members, c.launch())
	}
	l.t.Cleanup(func() {
		for _, m := range c.members { // those that stop has not ended
			_ = m.cmd.Process.Kill()
			_ = m.cmd.Wait()
		}
	})
	return c
}

func (c *crew) launch() *member {
	text, err := json.Marshal(orders{c.db.Dialect.String(), c.db.Driver, c.db.DSN, c.broker.url})
	if err != nil {
		panic(err)
	}
	m := &member{cmd: exec.Command(os.Args[0]), log: &tail.Buffer{}}
	m.cmd.Env = append(os.Environ(), relayEnv+"="+string(text))
	m.cmd.Stderr = m.log
	if m.stdin, err = m.cmd.StdinPipe(); err == nil {
		err = m.cmd.Start()
	}
	if err != nil {
		panic(fmt.Sprintf("start a relay: %v", err))
	}
	return m
}

// harass kills one of the relays again and again, every other time the active one,
// and starts another.
func (c *crew) harass(ctx context.Context) {
	if c.killEvery == 0 {
		return
	}
	for pause(ctx, c.killEvery) {
		victim, active := c.active(ctx)
		if c.kills%2 == 1 || !active {
			victim = rand.N(len(c.members))
			active = false
		}
		m := c.members[victim]
		_ = m.cmd.Process.Kill()
		if err := m.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			c.t.Errorf("a relay ended by itself: %v\n%s", err, m.log)
		}
		c.kills++
		if active {
			c.activeKills++
		}
		c.members[victim] = c.launch()
	}
}

// active returns which member says that it is active.
func (c *crew) active(ctx context.Context) (i int, ok bool) {
	s, err := c.box.Stats(ctx)
	if err != nil || s.LeaseUntil.Before(time.Now()) {
		return 0, false
	}
	for i, m := range c.members {
		if strings.HasSuffix(s.Relay, fmt.Sprintf("process %d", m.cmd.Process.Pid)) {
			return i, true
		}
	}
	return 0, false
}

// stop ends the relays in an orderly way.
func (c *crew) stop() {
	c.t.Helper()
	for _, m := range c.members {
		require.NoError(c.t, m.stdin.Close())
	}
	for _, m := range c.members {
		require.NoError(c.t, m.cmd.Wait(), m.log)
	}
}

func (c *crew) logs() string {
	var b strings.Builder
	for i, m := range c.members {
		fmt.Fprintf(&b, "relay %d:\n%s\n", i, m.log)
	}
	return b.String()
}
