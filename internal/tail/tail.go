// Package tail keeps for tests what a process has said last.
package tail

import (
	"bytes"
	"sync"
)

// Buffer keeps the last of what is written to it. The zero value is empty. It is
// safe for concurrent use.
type Buffer struct {
	mu   sync.Mutex
	text []byte
}

const size = 8 << 10

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	if over := len(b.text) - size; over > size {
		b.text = bytes.Clone(b.text[over:])
	}
	return len(p), nil
}

// String returns the last 8 KiB.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text[max(0, len(b.text)-size):])
}
