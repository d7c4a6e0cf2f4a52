package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/email"
	"github.com/millrace-go/millrace/examples/ecommerce/order"
	"github.com/millrace-go/millrace/examples/ecommerce/payment"
	"github.com/millrace-go/millrace/examples/ecommerce/platform"
	"github.com/millrace-go/millrace/examples/ecommerce/shipping"
	"github.com/millrace-go/millrace/examples/ecommerce/storefront"
	"github.com/millrace-go/millrace/examples/ecommerce/warehouse"
)

// allServices in the order in which they start: who sells comes last.
var allServices = []string{email.Name, shipping.Name, warehouse.Name, payment.Name, order.Name, storefront.Name}

const defaultAddr = "127.0.0.1:8080"

// config is what the flags say.
type config struct {
	addr     string
	anyPort  bool // addr was not asked for, another port is fine
	data     string
	bus      string
	services []string
	demo     int
	decline  float64
	fail     float64
	latency  time.Duration
	seed     uint64
}

// parseFlags reads and checks the command line.
func parseFlags(args []string, out io.Writer) (config, error) {
	c := config{}
	f := flag.NewFlagSet("ecommerce", flag.ContinueOnError)
	f.SetOutput(out)
	services := f.String("services", "all", "`LIST` of services to run, of "+strings.Join(allServices, ","))
	f.StringVar(&c.addr, "addr", defaultAddr, "`ADDRESS` to listen on; without the storefront any free port by default, for /healthz and /readyz only")
	f.StringVar(&c.data, "data", filepath.Join("data", "ecommerce"), "`DIR` for the services' databases")
	f.StringVar(&c.bus, "bus", "", "`URL` of the event bus (default: a SQLite file in the data directory)")
	f.IntVar(&c.demo, "demo", 0, "place `N` orders, show what becomes of them and the audit, exit")
	f.Float64Var(&c.decline, "decline", 0, "`RATIO` of payments to decline, 0 to 1")
	f.Float64Var(&c.fail, "fail", 0, "`RATIO` of handler calls that fail, 0 to below 1")
	f.DurationVar(&c.latency, "latency", 0, "`DURATION` that every handler call takes longer")
	f.Uint64Var(&c.seed, "seed", 1, "seed of what is decided by chance")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })

	var err error
	c.services, err = parseServices(*services)
	c.anyPort = !given["addr"] && (c.demo > 0 || !c.runs(storefront.Name))
	if !given["addr"] && !c.runs(storefront.Name) {
		c.addr = "127.0.0.1:0"
	}
	if c.bus == "" {
		c.bus = "sqlite:" + (&url.URL{Path: filepath.ToSlash(filepath.Join(c.data, "bus.db"))}).EscapedPath() + "?lease=" + platform.Lease.String()
	}
	return c, errors.Join(err, c.validate(f.Args()))
}

func (c config) validate(rest []string) error {
	var errs []error
	problem := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	problem(len(rest) > 0, "unexpected argument %q", rest)
	_, _, err := net.SplitHostPort(c.addr)
	problem(err != nil, "-addr %q: %w", c.addr, err)
	problem(c.data == "", "-data: the directory is empty")
	problem(c.demo < 0, "-demo %d: must not be negative", c.demo)
	problem(c.demo > 0 && !c.runs(storefront.Name), "-demo %d: the demo needs the storefront in -services", c.demo)
	problem(!(c.decline >= 0 && c.decline <= 1), "-decline %v: must be between 0 and 1", c.decline)
	problem(!(c.fail >= 0 && c.fail < 1), "-fail %v: must be at least 0 and below 1, or nothing would ever succeed", c.fail)
	problem(c.latency < 0, "-latency %v: must not be negative", c.latency)
	problem(strings.HasPrefix(c.bus, "memory:") && len(c.services) < len(allServices),
		"-bus %s: reaches only services of one process, so it needs all of them in -services", c.bus)
	return errors.Join(errs...)
}

// parseServices reads a list of services; they come back in starting order.
func parseServices(list string) ([]string, error) {
	if list == "all" {
		return allServices, nil
	}
	asked := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(allServices, name) {
			return nil, fmt.Errorf("-services %q: there is no service %q, only %s", list, name, strings.Join(allServices, ","))
		}
		asked[name] = true
	}
	var services []string
	for _, name := range allServices {
		if asked[name] {
			services = append(services, name)
		}
	}
	return services, nil
}

func (c config) runs(service string) bool { return slices.Contains(c.services, service) }

// patience is how long a demo waits for anything at all to happen.
func (c config) patience() time.Duration { return 30*time.Second + 30*c.latency }
