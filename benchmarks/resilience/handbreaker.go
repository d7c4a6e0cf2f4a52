package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// What one would write by hand if only what goes well had to be fast. None of
// it closes again: that costs calls that go well nothing.

var (
	errOpen   = errors.New("open")
	errFailed = errors.New("failed")
)

func failing(context.Context) error { return errFailed }

// handBreaker opens after five failures in a row.
type handBreaker struct {
	open atomic.Bool
	row  atomic.Int32
}

func (b *handBreaker) Do(ctx context.Context, fn func(context.Context) error) error {
	if b.open.Load() {
		return errOpen
	}
	err := fn(ctx)
	switch {
	case err != nil:
		b.open.Store(b.row.Add(1) >= 5)
	case b.row.Load() != 0:
		b.row.Store(0)
	}
	return err
}

// handRing opens when half of the last hundred calls have failed.
type handRing struct {
	open     atomic.Bool
	failures atomic.Int32
	next     atomic.Uint64
	ring     [100]atomic.Uint32
}

func (b *handRing) Do(ctx context.Context, fn func(context.Context) error) error {
	if b.open.Load() {
		return errOpen
	}
	err := fn(ctx)
	b.count(err != nil)
	return err
}

func (b *handRing) count(bad bool) {
	outcome := uint32(0)
	if bad {
		outcome = 1
	}
	slot := &b.ring[b.next.Add(1)%uint64(len(b.ring))]
	if slot.Load() == outcome {
		return
	}
	if before := slot.Swap(outcome); before != outcome && b.failures.Add(int32(outcome)-int32(before)) >= 50 {
		b.open.Store(true)
	}
}

// handBuckets opens when half of the calls of half a second have failed. Calls are
// in the upper half of a bucket, failures in the lower one.
type handBuckets struct {
	open    atomic.Bool
	buckets [10]struct {
		step, counts atomic.Int64
	}
}

const oneCall = 1 << 32

func (b *handBuckets) Do(ctx context.Context, fn func(context.Context) error) error {
	if b.open.Load() {
		return errOpen
	}
	step := sinceStart() / int64(short/10)
	err := fn(ctx)
	bucket := &b.buckets[step%10]
	if bucket.step.Load() != step {
		bucket.step.Store(step)
		bucket.counts.Store(0)
	}
	if err == nil {
		bucket.counts.Add(oneCall)
		return nil
	}
	bucket.counts.Add(oneCall + 1)
	var calls, failures int64
	for i := range b.buckets {
		if c := b.buckets[i].counts.Load(); b.buckets[i].step.Load() > step-10 {
			calls, failures = calls+c/oneCall, failures+c%oneCall
		}
	}
	b.open.Store(calls >= 20 && 2*failures >= calls)
	return err
}

// handSlow is a handRing that counts calls of ten seconds as failures.
type handSlow struct{ handRing }

func (b *handSlow) Do(ctx context.Context, fn func(context.Context) error) error {
	if b.open.Load() {
		return errOpen
	}
	begun := sinceStart()
	err := fn(ctx)
	b.count(err != nil || sinceStart()-begun > int64(period))
	return err
}

var start = time.Now()

// sinceStart is the cheapest clock there is: time.Now reads two.
func sinceStart() int64 { return int64(time.Since(start)) }
