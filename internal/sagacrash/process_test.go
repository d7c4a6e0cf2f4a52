package sagacrash

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/saga"
)

const processEnv = "MILLRACE_SAGA_CRASH_PROCESS"

// place is what a process is told.
type place struct{ Service, DSN, Bus string }

// lease is short, so that another relay takes over between two kills.
const lease = time.Second

// stubborn is the retry policy of participants: what fails is tried until it
// succeeds.
var stubborn = eventbus.RetryPolicy{Tries: 2, Delays: []time.Duration{200 * time.Millisecond, time.Second}, Redeliveries: 1 << 20, KeepOrder: true}

// process is one of a service's.
type process struct {
	db    *sql.DB
	svc   *eventbus.Service
	box   *outbox.Outbox
	inbox *idempotency.Inbox
}

// processMain is the process of a service. It ends when its standard input does,
// as it does when the test's process is gone.
func processMain() bool {
	text := os.Getenv(processEnv)
	if text == "" {
		return false
	}
	var at place
	check(json.Unmarshal([]byte(text), &at))
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	db, err := open(at.DSN)
	check(err)
	defer db.Close()
	bus, err := eventbus.Open(ctx, at.Bus)
	check(err)
	defer bus.Close()
	p := process{db: db, svc: eventbus.NewService(at.Service, bus, eventbus.Defaults(eventbus.Retry(stubborn))), box: outbox.New(db, outbox.Postgres), inbox: newInbox(db)}
	p.svc.Use(reporting)
	p.svc.Add(p.box.Relay(bus, outbox.Lease(lease)))
	switch at.Service {
	case orders:
		p.orchestrate()
	case stock:
		p.keepStock()
	case sales:
		p.sell()
	case desk:
		p.serveDesk()
	}
	check(p.svc.Run(ctx))
	return true
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func open(dsn string) (*sql.DB, error) {
	db, err := sql.Open("pgx", dsn)
	if err == nil {
		db.SetMaxOpenConns(10)
		db.SetMaxIdleConns(10)
	}
	return db, err
}

func newInbox(db *sql.DB) *idempotency.Inbox { return idempotency.NewInbox(db, idempotency.Postgres) }

func newBarrier(db *sql.DB) *idempotency.Barrier {
	return idempotency.NewBarrier(db, idempotency.Postgres, idempotency.BarrierConfig{})
}

func (p process) participant() *saga.Participant {
	return saga.NewParticipant(p.inbox, newBarrier(p.db))
}

// The lines of a process's standard output say what it has done, also if it is
// killed thereafter.
const (
	reportTaken     = "took " // an event, whose id follows
	reportHandled   = "handled"
	reportConflict  = "conflict"
	reportDuplicate = "duplicate"
)

// report writes the line at once, and as a whole.
func report(line string) { _, _ = os.Stdout.WriteString(line + "\n") }

func reporting(next message.HandlerFunc) message.HandlerFunc {
	return func(m *message.Message) ([]*message.Message, error) {
		report(reportTaken + m.UUID)
		out, err := next(m)
		if err == nil {
			report(reportHandled)
		}
		return out, err
	}
}
