package main

import (
	"sync/atomic"
	"testing"
)

// BenchmarkPolicies is the same as the command, for go test's tools.
func BenchmarkPolicies(b *testing.B) {
	b.Run("bare call", bareCall.benchmark)
	for _, g := range groups() {
		b.Run(g.title, func(b *testing.B) {
			for _, v := range g.variants {
				b.Run(v.name, v.benchmark)
			}
		})
	}
}

func (v variant) benchmark(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		call := v.caller()
		for b.Loop() {
			if err := call(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("together", func(b *testing.B) {
		b.ReportAllocs()
		var failed atomic.Pointer[error]
		b.RunParallel(func(pb *testing.PB) {
			call := v.caller()
			for pb.Next() {
				if err := call(); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
		if err := failed.Load(); err != nil {
			b.Fatal(*err)
		}
	})
}
