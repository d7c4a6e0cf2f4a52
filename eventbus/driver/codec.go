package driver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"
)

// metadataV1 begins stored metadata: the version, then the number of pairs,
// then names and values in the order of names, each after its length in bytes.
// Numbers are unsigned varints in their shortest form.
const metadataV1 = 1

var errMetadata = errors.New("stored metadata is damaged")

// EncodeMetadata writes m, without the names in leaveOut, for a column or file
// that takes bytes. Any bytes in names and values survive; equal maps give equal
// bytes. The format is a contract: what one version wrote, all later ones read.
func EncodeMetadata(m message.Metadata, leaveOut ...string) []byte {
	var space [16]string
	names, size := space[:0], 1+binary.MaxVarintLen32
	for name, value := range m {
		if !slices.Contains(leaveOut, name) {
			names = append(names, name)
			size += len(name) + len(value) + 4
		}
	}
	slices.Sort(names)
	b := append(make([]byte, 0, size), metadataV1)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = appendText(appendText(b, name), m[name])
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// DecodeMetadata reads what EncodeMetadata wrote and refuses everything else.
// All strings share one copy of b, or b itself if it is a string.
func DecodeMetadata[T []byte | string](b T) (message.Metadata, error) {
	return decodeMetadata(string(b))
}

func decodeMetadata(b string) (message.Metadata, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: it is empty", errMetadata)
	}
	if b[0] != metadataV1 {
		return nil, fmt.Errorf("stored metadata has version %d, this program reads version %d: upgrade it", b[0], metadataV1)
	}
	r := metadataReader{text: b, at: 1}
	pairs := r.number()
	if pairs > uint64(len(b))/2 { // a pair takes two bytes at least
		return nil, fmt.Errorf("%w: number of pairs", errMetadata)
	}
	m := make(message.Metadata, pairs)
	last := ""
	for i := range pairs {
		name, value := r.next(), r.next()
		if r.bad || i > 0 && name <= last {
			return nil, fmt.Errorf("%w: pair %d of %d", errMetadata, i+1, pairs)
		}
		m[name], last = value, name
	}
	if r.bad || r.at != len(b) {
		return nil, fmt.Errorf("%w: length", errMetadata)
	}
	return m, nil
}

// metadataReader cuts text into numbers and strings; bad says that it could not.
type metadataReader struct {
	text string
	at   int
	bad  bool
}

// number refuses numbers that are not written in the shortest way.
func (r *metadataReader) number() (n uint64) {
	for shift := 0; r.at < len(r.text) && shift < 63; shift += 7 {
		c := r.text[r.at]
		r.at++
		if n |= uint64(c&0x7f) << shift; c < 0x80 {
			r.bad = r.bad || c == 0 && shift > 0
			return n
		}
	}
	r.bad = true
	return 0
}

func (r *metadataReader) next() string {
	n := r.number()
	if r.bad || n > uint64(len(r.text)-r.at) {
		r.bad = true
		return ""
	}
	s := r.text[r.at : r.at+int(n)]
	r.at += int(n)
	return s
}
