package eventbustest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// victimVariable makes a test binary that calls Run a member of a group that
// takes events and never settles them, until it is killed. Its value is the
// broker's URL, the topic and the group, in lines.
const victimVariable = "MILLRACE_EVENTBUSTEST_VICTIM"

// victimStarted is what a victim prints when its handler runs.
const victimStarted = "victim: a handler runs"

func beVictim(t *testing.T, order string) {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with whoever started this process
		os.Exit(1)
	}()
	parts := strings.Split(order, "\n")
	b, err := driver.Open(context.Background(), parts[0], driver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.Subscribe(context.Background(), driver.Subscription{Topic: parts[1], Group: parts[2], Concurrency: 4, Handle: func(*driver.Delivery) driver.Result {
		fmt.Println(victimStarted)
		select {}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(c.Run(context.Background()))
}

// crash has a member of another process killed while its handler runs.
func crash(s *suite) {
	if s.backend.URL == "" {
		s.Skip("the broker can't be reached from another process")
	}
	b := s.open()
	s.join(b, subscription("t", "g"), nil).leave() // the group exists
	test, _, _ := strings.Cut(s.Name(), "/")
	victim := exec.Command(os.Args[0], "-test.run", "^"+test+"$")
	victim.Env = append(os.Environ(), victimVariable+"="+strings.Join([]string{s.backend.URL, s.names.name("t"), s.names.name("g")}, "\n"))
	out, err := victim.StdoutPipe()
	s.must(err, "pipe")
	alive, err := victim.StdinPipe()
	s.must(err, "pipe")
	defer alive.Close()
	s.must(victim.Start(), "start a process")
	started := make(chan struct{})
	var said strings.Builder
	go func() {
		defer close(started)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == victimStarted {
				return
			}
			said.WriteString(lines.Text() + "\n")
		}
	}()
	s.publish(b, "t", event("a", "k", "x"), event("b", "k", "x"))
	s.await(started, "the handler of another process to start")
	s.must(victim.Process.Kill(), "kill")
	if _ = victim.Wait(); victim.ProcessState.Exited() {
		s.broken("the other process ended by itself: %s", said.String())
	}
	s.join(b, subscription("t", "g"), nil).waitFor("a", "b")
}
