package idempotency

import (
	"bytes"
	"fmt"
)

// kept is what a guard stores as the result of an operation: a byte that says
// what it is, and the bytes. The numbers are part of the stored format.
type kept struct {
	kind byte
	data []byte
}

const (
	keptResult      byte = 1 // data is the result
	keptTooLarge    byte = 2 // there was a result over the limit
	keptUnencodable byte = 3 // there was a result that can't be encoded
)

// bounded drops data over the limit.
func (k kept) bounded(limit int) kept {
	if len(k.data) > limit {
		return kept{kind: keptTooLarge}
	}
	return k
}

// copy is for another goroutine.
func (k kept) copy() *kept { return &kept{k.kind, bytes.Clone(k.data)} }

func (k kept) encode() []byte {
	b := make([]byte, 0, 1+len(k.data))
	return append(append(b, k.kind), k.data...)
}

func decodeKept(b []byte) (kept, error) {
	if len(b) == 0 || b[0] < keptResult || b[0] > keptUnencodable {
		return kept{}, fmt.Errorf("%w: the stored result is not in a format that this version reads", ErrNoResult)
	}
	return kept{kind: b[0], data: b[1:]}, nil
}

// value returns the result, or why there is none.
func (k kept) value(key Key) ([]byte, error) {
	switch k.kind {
	case keptResult:
		return k.data, nil
	case keptTooLarge:
		return nil, refused(key, fmt.Errorf("%w: it was larger than the policy's MaxResult", ErrNoResult))
	}
	return nil, refused(key, fmt.Errorf("%w: it could not be encoded", ErrNoResult))
}
