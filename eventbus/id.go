package eventbus

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// lastV7 is the timestamp of the latest NewID: milliseconds in the upper 52
// bits, 4096ths of a millisecond in the lower 12.
var lastV7 atomic.Int64

// NewID returns a fresh UUIDv7 (RFC 9562, method 3: the sub-millisecond
// fraction stands in rand_a), the form of ids of events that nobody caused. Ids
// made by one process rise strictly. It is safe for concurrent use.
func NewID() string { return newIDAt(time.Now()) }

func newIDAt(now time.Time) string {
	stamp := now.UnixMilli()<<12 | int64(now.Nanosecond()%1e6)*4096/1e6
	for {
		last := lastV7.Load()
		stamp = max(stamp, last+1)
		if lastV7.CompareAndSwap(last, stamp) {
			break
		}
	}
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(stamp)>>12<<16|0x7000|uint64(stamp)&0x0fff)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()&(1<<62-1)|1<<63)
	return formatID(id)
}

// derivedID names the n-th event that consumer publishes to topic while
// handling parent, which its source, id and topic identify. Handling parent
// again gives the same ids, so every inbox downstream drops the repeats. It is a
// UUIDv8 (RFC 9562): the timestamp bits of a UUIDv7 parent, which keep the
// locality of indexes, then SHA-256.
func derivedID(parent cause, consumer, topic string, n int) string {
	h := sha256.New()
	for _, part := range []string{parent.Source, parent.ID, parent.topic, consumer, topic} {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(part)))
		h.Write(size[:])
		h.Write([]byte(part))
	}
	h.Write([]byte(strconv.Itoa(n)))
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	id := uuid.UUID(sum[:16])
	if p, err := uuid.Parse(parent.ID); err == nil && (p.Version() == 7 || p.Version() == 8) {
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
