package main

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/saga"
)

// heap tells what is left on the heap after many sagas within a service.
func (b *bench) heap() error {
	const workers = 16
	s := *b.pgx
	if err := errors.Join(b.rest(), s.orchestrate(saga.Config{})); err != nil {
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
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what was in pools goes with the second
		runtime.ReadMemStats(&m)
		fmt.Printf("| %s | %s | %s |\n", rounds.Thousands(n), rounds.Thousands(int(m.HeapAlloc>>10)), rounds.Thousands(int(m.HeapObjects)))
	}
	return stop()
}
