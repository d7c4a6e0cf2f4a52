// Package benchmarks measures Millrace beside its peers and beside what one
// would write by hand, in one run, so that the ratios hold on a noisy machine.
//
//	cd benchmarks && go test -run '^$' -bench Bus -benchmem -count 5 . | tee bus.txt
//
// docs/performance.md holds the figures and how to read them.
package benchmarks
