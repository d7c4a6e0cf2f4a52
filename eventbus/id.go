package eventbus

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"

	"github.com/google/uuid"
)

// NewID returns a fresh UUIDv7 (RFC 9562), the form of ids of events that
// nobody caused.
func NewID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic("eventbus: the system has no randomness: " + err.Error()) // as crypto/rand does
	}
	return formatID(id)
}

// derivedID names the n-th event that consumer publishes to topic while
// handling parent. Handling parent again gives the same ids, so every inbox
// downstream drops the repeats. It is a UUIDv8 (RFC 9562): the timestamp bits
// of a UUIDv7 parent, which keep the locality of indexes, then SHA-256.
func derivedID(parent, consumer, topic string, n int) string {
	h := sha256.New()
	for _, part := range []string{parent, consumer, topic} {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(part)))
		h.Write(size[:])
		h.Write([]byte(part))
	}
	h.Write([]byte(strconv.Itoa(n)))
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	id := uuid.UUID(sum[:16])
	if p, err := uuid.Parse(parent); err == nil && (p.Version() == 7 || p.Version() == 8) {
		copy(id[:6], p[:6])
	}
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return formatID(id)
}

// formatID is UUID.String with one allocation.
func formatID(id uuid.UUID) string {
	var text [36]byte
	hex.Encode(text[0:8], id[0:4])
	hex.Encode(text[9:13], id[4:6])
	hex.Encode(text[14:18], id[6:8])
	hex.Encode(text[19:23], id[8:10])
	hex.Encode(text[24:36], id[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
