package sqlbus

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// victim is the test binary as a process of its own, to be killed. It reports
// on standard output, a line for each thing that is done.
func victim(path string) {
	b, err := Open(context.Background(), path, Config{Lease: time.Second})
	if err != nil {
		panic(err)
	}
	if os.Getenv("MILLRACE_SQLBUS_TASK") == "publish" {
		victimPublishes(b)
	}
	victimConsumes(b)
}

func victimPublishes(b *Broker) {
	for p := range 4 {
		go func() {
			for n := 1; ; n++ {
				id := fmt.Sprintf("%d/%d", p, n)
				if err := b.Publish("t", msg(fmt.Sprint(p), id)); err != nil {
					panic(err)
				}
				fmt.Println(id)
			}
		}()
	}
	select {}
}

func victimConsumes(b *Broker) {
	c, err := b.Subscribe(context.Background(), driver.Subscription{Topic: "t", Group: "g", Concurrency: 4, Handle: func(d *driver.Delivery) driver.Result {
		if d.Key == "delayed" {
			return driver.Result{Redeliver: true, Delay: 1500 * time.Millisecond}
		}
		time.Sleep(time.Millisecond) // a handler takes its time
		fmt.Println(d.Key + "/" + text(d))
		return driver.Result{}
	}})
	if err != nil {
		panic(err)
	}
	panic(c.Run(context.Background()))
}

// startVictim returns the lines that it reports and a function that kills it
// and returns the rest of them.
func startVictim(t *testing.T, path, task string) (next func() string, kill func() []string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MILLRACE_SQLBUS_VICTIM="+path, "MILLRACE_SQLBUS_TASK="+task)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	r := bufio.NewReader(out)
	next = func() string {
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		return strings.TrimSpace(line)
	}
	kill = func() []string {
		require.NoError(t, cmd.Process.Kill())
		rest, err := io.ReadAll(r)
		require.NoError(t, err)
		_ = cmd.Wait() // reports only that it was killed
		lines := strings.Split(string(rest), "\n")
		return lines[:len(lines)-1]
	}
	return next, kill
}

func TestWhatAKilledPublisherHadAcceptedIsThere(t *testing.T) {
	path := tempPath(t)
	next, kill := startVictim(t, path, "publish")
	accepted := map[string]bool{}
	for range 200 {
		accepted[next()] = true
	}
	for _, id := range kill() {
		accepted[id] = true
	}
	b := openAt(t, path, Config{})
	for id := range accepted {
		require.Equal(t, 1, count(t, b, "SELECT count(*) FROM millrace_events WHERE id = 'id-' || ?", id), id)
	}
}

func TestSurvivorTakesOverFromAKilledMember(t *testing.T) {
	path := tempPath(t)
	b := openAt(t, path, Config{Lease: time.Second})
	const keys, each = 20, 20
	require.NoError(t, b.Publish("t", msg("delayed", 1)))
	for n := 1; n <= each; n++ {
		for k := range keys {
			require.NoError(t, b.Publish("t", msg(fmt.Sprint("k", k), n)))
		}
	}
	next, kill := startVictim(t, path, "consume")
	handled := map[string]bool{}
	for range keys * each / 4 {
		handled[next()] = true
	}
	eventually(t, "the delayed event is stored", func() bool { return count(t, b, "SELECT count(*) FROM millrace_exceptions") == 1 })
	for _, id := range kill() {
		handled[id] = true
	}
	killed := time.Now()
	require.Less(t, len(handled), keys*each, "the victim was to be killed in the middle")

	got := make(chan *driver.Delivery, 10*keys*each)
	start(t, b, driver.Subscription{Concurrency: 4, Handle: into(got)})
	repeated, attempt := 0, 0
	last := map[string]int64{}
	for len(handled) < keys*each || attempt == 0 {
		d := receive(t, got)
		if len(last) == 0 {
			t.Log("taken over after", time.Since(killed).Round(time.Millisecond))
		}
		require.Greater(t, d.Position.Offset, last[d.Key], "order of key %s", d.Key)
		last[d.Key] = d.Position.Offset
		if d.Key == "delayed" {
			attempt = d.Attempt
			continue
		}
		id := d.Key + "/" + text(d)
		if handled[id] {
			repeated++
		}
		handled[id] = true
	}
	require.Equal(t, 2, attempt, "the count of a delayed redelivery survives")
	t.Log("repeated:", repeated)
}
