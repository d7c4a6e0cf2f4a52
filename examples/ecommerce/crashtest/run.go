package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// config says what to do.
type config struct {
	form          string // "one" or "six" processes
	rounds        int    // kills
	inFlight      int    // orders to keep in flight
	fail, decline float64
	seed          uint64
	bus           string
}

func (c config) validate() error {
	switch {
	case c.form != "one" && c.form != "six":
		return fmt.Errorf("-form %q: must be one or six", c.form)
	case c.rounds < 1:
		return fmt.Errorf("-rounds %d: must be at least 1", c.rounds)
	case c.inFlight < 1:
		return fmt.Errorf("-orders %d: must be at least 1", c.inFlight)
	}
	return nil
}

const (
	shortestLife = 50 * time.Millisecond // of a process between two kills
	longestLife  = 6 * time.Second
	longestDeath = 500 * time.Millisecond // until it is started again
	patience     = time.Minute            // while nothing at all changes
)

var services = []string{"storefront", "order", "payment", "warehouse", "shipping", "email"}

// printf takes the lines of the report.
type printf func(format string, args ...any)

// run is one crash test. It keeps its files if it fails, and says where.
func run(ctx context.Context, logf printf, cfg config) (err error) {
	if err := cfg.validate(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "millrace-crashtest-")
	if err != nil {
		return err
	}
	logf("crashtest: form %s, %d rounds, %d orders in flight, fail %v, seed %d", cfg.form, cfg.rounds, cfg.inFlight, cfg.fail, cfg.seed)
	defer func() {
		if err != nil {
			err = fmt.Errorf("form %s, seed %d, files kept in %s: %w", cfg.form, cfg.seed, dir, err)
			return
		}
		err = os.RemoveAll(dir)
	}()
	s, err := newShop(ctx, cfg, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	return s.test(ctx, logf)
}

// shop is the shop under test.
type shop struct {
	cfg       config
	url       string
	processes []*process
	crowd     *crowd
	dice      *rand.Rand
}

func newShop(ctx context.Context, cfg config, dir string) (*shop, error) {
	binary := filepath.Join(dir, "ecommerce")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/millrace-go/millrace/examples/ecommerce")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the shop: %w\n%s", err, text)
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	s := &shop{cfg: cfg, url: "http://" + addr, dice: rand.New(rand.NewPCG(cfg.seed, 0))}
	bus, err := ownBus(cfg.bus)
	if err != nil {
		return nil, err
	}
	args := []string{"-data", filepath.Join(dir, "data"), "-bus", bus, "-seed", fmt.Sprint(cfg.seed),
		"-fail", fmt.Sprint(cfg.fail), "-decline", fmt.Sprint(cfg.decline)}
	if cfg.form == "one" {
		s.processes = []*process{{name: "all", dir: dir, binary: binary, args: append(args, "-addr", addr)}}
	} else {
		for _, name := range services {
			own := append(slices.Clone(args), "-services", name)
			if name == "storefront" {
				own = append(own, "-addr", addr)
			}
			s.processes = append(s.processes, &process{name: name, dir: dir, binary: binary, args: own})
		}
	}
	s.crowd = newCrowd(s.url, cfg.inFlight)
	return s, nil
}

// ownBus gives the run names of its own on a broker that others use, too.
func ownBus(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", errors.New("-bus: the URL can't be parsed")
	}
	q := u.Query()
	if !q.Has("prefix") {
		q.Set("prefix", fmt.Sprintf("crashtest-%08x.", rand.Uint32()))
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// freeAddr finds a port that all lives of the storefront will have.
func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (s *shop) test(ctx context.Context, logf printf) error {
	began := time.Now()
	for _, p := range s.processes {
		if err := p.start(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.crowd.wait()
	defer cancel()
	if err := s.crowd.open(ctx); err != nil {
		return err
	}
	var inFlight []int
	for round := 1; round <= s.cfg.rounds; round++ {
		n, err := s.kill(ctx, logf, round)
		if err != nil {
			return err
		}
		inFlight = append(inFlight, n)
	}
	killed := time.Since(began)
	s.crowd.stopPlacing()
	if err := s.crowd.awaitEnd(ctx); err != nil {
		return errors.Join(err, s.deadProcesses())
	}
	if err := s.crowd.check(ctx); err != nil {
		return err
	}
	recovered := time.Since(began.Add(killed))
	cancel()
	s.crowd.wait()
	if err := errors.Join(s.stop(), s.deadLetters()); err != nil {
		return err
	}
	slices.Sort(inFlight)
	repeats, audits := s.crowd.counts()
	logf(`crashtest: %d kills in %v, with %d to %d orders in flight (median %d)
crashtest: %d orders accepted, %d requests repeated, %d audits while orders were in flight
crashtest: all orders final and the audit consistent %v after the last kill`,
		s.cfg.rounds, killed.Round(time.Millisecond), inFlight[0], inFlight[len(inFlight)-1], inFlight[len(inFlight)/2],
		s.crowd.accepted(), repeats, audits, recovered.Round(time.Millisecond))
	return nil
}

// kill lets the shop live for a while, kills one of its processes and starts it
// again. It returns how many orders were in flight.
func (s *shop) kill(ctx context.Context, logf printf, round int) (inFlight int, err error) {
	life := shortestLife + time.Duration(s.dice.Int64N(int64(longestLife-shortestLife)))
	death := time.Duration(s.dice.Int64N(int64(longestDeath)))
	victim := s.processes[s.dice.IntN(len(s.processes))]
	if err := pause(ctx, life); err != nil {
		return 0, err
	}
	if err := errors.Join(s.deadProcesses(), s.crowd.err()); err != nil {
		return 0, err
	}
	inFlight = s.crowd.unfinished()
	if err := victim.kill(); err != nil {
		return 0, err
	}
	logf("  round %2d: %s killed after %v, %d orders accepted, %d of them in flight", round, victim.name, life.Round(time.Millisecond), s.crowd.accepted(), inFlight)
	if err := pause(ctx, death); err != nil {
		return 0, err
	}
	return inFlight, victim.start()
}

// deadProcesses names the processes that ended although nobody killed them.
func (s *shop) deadProcesses() error {
	var errs []error
	for _, p := range s.processes {
		errs = append(errs, p.alive())
	}
	return errors.Join(errs...)
}

// deadLetters reports events that were given up.
func (s *shop) deadLetters() error {
	var errs []error
	for _, p := range s.processes {
		errs = append(errs, p.logHasNo("dead-letter topic"))
	}
	return errors.Join(errs...)
}

// stop stops all processes as a supervisor would; each must end cleanly.
func (s *shop) stop() error {
	var errs []error
	for _, p := range s.processes {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// end kills what is left.
func (s *shop) end() error {
	var errs []error
	for _, p := range s.processes {
		errs = append(errs, p.kill())
	}
	return errors.Join(errs...)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
