package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// metadataV1 is the first byte of version 1: the number of pairs, then each name
// and value in the order of names, all strings with their length before them and
// every number a uvarint. Any bytes survive it, not only UTF-8.
const metadataV1 = 1

// encodeMetadata appends m without the names that skip lists.
func encodeMetadata(to []byte, m map[string]string, skip string) []byte {
	var space [16]string
	names, size := space[:0], 8
	for name, value := range m {
		if name != skip {
			names = append(names, name)
			size += len(name) + len(value) + 4
		}
	}
	slices.Sort(names)
	to = append(slices.Grow(to, size), metadataV1)
	to = binary.AppendUvarint(to, uint64(len(names)))
	for _, name := range names {
		to = appendString(appendString(to, name), m[name])
	}
	return to
}

func appendString(to []byte, s string) []byte {
	return append(binary.AppendUvarint(to, uint64(len(s))), s...)
}

var errTruncated = errors.New("metadata ends early")

// decodeMetadata reads what encodeMetadata wrote. All strings share one copy of
// the bytes.
func decodeMetadata(b []byte) (map[string]string, error) {
	if len(b) == 0 {
		return nil, errTruncated
	}
	if b[0] != metadataV1 {
		return nil, fmt.Errorf("metadata has version %d, this program reads version %d: use the one that wrote it, or a newer one", b[0], metadataV1)
	}
	count, at := uvarint(b, 1)
	if at < 0 || count > uint64(len(b))/2 { // a pair takes two bytes at least
		return nil, errTruncated
	}
	text := string(b)
	m := make(map[string]string, count)
	for range count {
		var name, value string
		if name, at = nextString(b, text, at); at >= 0 {
			value, at = nextString(b, text, at)
		}
		if at < 0 {
			return nil, errTruncated
		}
		m[name] = value
	}
	if at != len(b) || uint64(len(m)) != count {
		return nil, errors.New("metadata has bytes left over, or a name twice")
	}
	return m, nil
}

// nextString reads a string at the offset and returns the offset behind it, or
// a negative one.
func nextString(b []byte, text string, at int) (string, int) {
	n, at := uvarint(b, at)
	if at < 0 || n > uint64(len(b)-at) {
		return "", -1
	}
	end := at + int(n)
	return text[at:end], end
}

func uvarint(b []byte, at int) (uint64, int) {
	v, n := binary.Uvarint(b[at:])
	if n <= 0 {
		return 0, -1
	}
	return v, at + n
}
