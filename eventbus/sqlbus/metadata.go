package sqlbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"
)

// metadataV1 begins stored metadata: the version, then the number of pairs,
// then keys and values in order of keys, each after its length in bytes.
// Numbers are unsigned varints. Any bytes are legal in keys and values.
const metadataV1 = 1

var errMetadata = errors.New("stored metadata is damaged")

func encodeMetadata(m message.Metadata) []byte {
	size := 1 + binary.MaxVarintLen32
	for k, v := range m {
		size += len(k) + len(v) + 2*binary.MaxVarintLen32
	}
	b := append(make([]byte, 0, size), metadataV1)
	b = binary.AppendUvarint(b, uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b = appendText(b, k)
		b = appendText(b, m[k])
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeMetadata accepts what encodeMetadata produces and nothing else.
func decodeMetadata(b []byte) (message.Metadata, error) {
	if len(b) == 0 || b[0] != metadataV1 {
		return nil, fmt.Errorf("%w: unknown version", errMetadata)
	}
	pairs, b, ok := cutNumber(b[1:])
	if !ok || pairs > uint64(len(b))/2 { // a pair takes two bytes at least
		return nil, fmt.Errorf("%w: number of pairs", errMetadata)
	}
	m := make(message.Metadata, pairs)
	last := ""
	for i := range pairs {
		var k, v string
		if k, b, ok = cutText(b); ok {
			v, b, ok = cutText(b)
		}
		if !ok || i > 0 && k <= last {
			return nil, fmt.Errorf("%w: pair %d of %d", errMetadata, i+1, pairs)
		}
		m[k], last = v, k
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", errMetadata, len(b))
	}
	return m, nil
}

// cutNumber refuses numbers that are not written in the shortest way.
func cutNumber(b []byte) (n uint64, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || size > 1 && b[size-1] == 0 {
		return 0, b, false
	}
	return n, b[size:], true
}

func cutText(b []byte) (s string, rest []byte, ok bool) {
	n, b, ok := cutNumber(b)
	if !ok || n > uint64(len(b)) {
		return "", b, false
	}
	return string(b[:n]), b[n:], true
}
