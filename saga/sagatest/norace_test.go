//go:build !race

package sagatest_test

const raced = false
