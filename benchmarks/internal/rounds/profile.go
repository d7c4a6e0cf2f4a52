package rounds

import (
	"os"
	"runtime/pprof"
)

// Profiled runs fn and writes profiles of the CPU and of allocations to the files
// that have a name.
func Profiled(cpu, allocs string, fn func() error) error {
	if cpu != "" {
		f, err := os.Create(cpu)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	err := fn()
	if allocs != "" && err == nil {
		f, create := os.Create(allocs)
		if create != nil {
			return create
		}
		defer func() { _ = f.Close() }()
		err = pprof.Lookup("allocs").WriteTo(f, 0)
	}
	return err
}
