package main

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/saga"
)

// heap tells what is left on the heap after many sagas within a service, whose
// wake-ups are handled meanwhile.
func (b *bench) heap() error {
	const workers = 16
	s := *b.pgx
	if err := errors.Join(b.rest(), s.orchestrate(saga.Config{RecoverAfter: time.Second})); err != nil {
		return err
	}
	stop, err := s.serve(b.ctx, nil)
	if err != nil {
		return err
	}
	fmt.Print("\n### Heap of the process\n\n| after sagas | KiB | objects |\n|---|---|---|\n")
	done := 0
	for _, n := range []int{b.sagas / 100, b.sagas / 10, b.sagas / 2, b.sagas} {
		n -= n % workers
		if _, err := b.together(workers, n-done, func(int) error { return s.execute(b.ctx) }); err != nil {
			return errors.Join(err, stop())
		}
		done = n
		if err := b.settle(); err != nil {
			return errors.Join(err, stop())
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what was in pools goes with the second
		runtime.ReadMemStats(&m)
		fmt.Printf("| %s | %s | %s |\n", rounds.Thousands(n), rounds.Thousands(int(m.HeapAlloc>>10)), rounds.Thousands(int(m.HeapObjects)))
	}
	return stop()
}

// settle waits until the wake-ups of sagas that have ended are gone.
func (b *bench) settle() error {
	for start := time.Now(); ; {
		var left int
		if err := b.pool.QueryRow(b.ctx, "SELECT count(*) FROM millrace_outbox_scheduled").Scan(&left); err != nil {
			return err
		}
		if left == 0 {
			time.Sleep(2 * time.Second) // for those on the bus
			return nil
		}
		if time.Since(start) > time.Minute {
			return fmt.Errorf("%d wake-ups are left", left)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
