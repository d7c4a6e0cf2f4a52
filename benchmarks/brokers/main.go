// Command brokers measures Millrace's drivers beside what one would write by
// hand on the raw client, with the same promises, and beside Watermill's
// adapters: all in one run, interleaved, on one machine.
//
//	go run ./brokers -kafka kfake
//	go run ./brokers -kafka kafka://127.0.0.1:9092 -amqp amqp://guest:guest@127.0.0.1:5672/
package main

import (
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
)

func main() {
	n := flag.Int("rounds", 5, "`N` rounds, of which the median counts")
	only := flag.String("only", "", "run only tables whose title has this `TEXT`")
	urls := map[string]*string{
		"kafka":    flag.String("kafka", "", "`URL` of a Kafka cluster, or kfake for an embedded one"),
		"amqp":     flag.String("amqp", "", "`URL` of a RabbitMQ"),
		"postgres": flag.String("postgres", "", "`URL` of a PostgreSQL database"),
		"mysql":    flag.String("mysql", "", "`URL` of a MySQL or MariaDB database"),
	}
	flag.Parse()
	filter = *only
	var errs []error
	for _, b := range []struct {
		name string
		run  func(string, int) error
	}{{"kafka", kafka}, {"amqp", rabbit}, {"postgres", postgres}, {"mysql", mysql}} {
		if url := *urls[b.name]; url != "" {
			errs = append(errs, b.run(url, *n))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("name at least one broker; see -help"))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, "brokers:", err)
		os.Exit(1)
	}
}

// table compares variants of one job.
type table struct {
	title    string
	variants []variant
}

type variant struct {
	name string
	run  func() (rounds.Sample, error)
}

var filter string

func tables(n int, all []table) error {
	for _, t := range all {
		if !strings.Contains(t.title, filter) {
			continue
		}
		of := rounds.Table{Title: t.title, Of: "event", Speed: true}
		for _, v := range t.variants {
			of.Variants = append(of.Variants, rounds.Variant{Name: v.name, Run: v.run})
		}
		if err := of.Run(n); err != nil {
			return err
		}
	}
	return nil
}

var (
	session  = strings.ToLower(rand.Text()[:6])
	lastName atomic.Int64
)

// newName returns a name that nobody has used.
func newName(kind string) string {
	return fmt.Sprintf("bench-%s-%s-%d", kind, session, lastName.Add(1))
}
