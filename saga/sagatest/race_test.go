//go:build race

package sagatest_test

// raced is whether the tests are slow, because the race detector watches.
const raced = true
