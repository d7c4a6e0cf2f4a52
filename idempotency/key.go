package idempotency

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/millrace-go/millrace/eventbus"
)

// Key names one operation that must take effect once. It is a comparable value;
// two keys are the same if both fields are, byte by byte.
type Key struct {
	// Scope is within what ID is unique, such as "charge" or a consumer group.
	// Required, of any length.
	Scope string
	// ID of the operation, the same in every repetition of it: an order's id, an
	// event's id, never something made up for the attempt. Required, of any
	// length and any bytes.
	ID string
}

// maxShown bounds the parts of a key in errors, logs and the SQL column for
// people, in bytes.
const maxShown = 120

// String returns the key for errors and logs, long parts cut. It does not tell
// all keys apart; Hash does.
func (k Key) String() string {
	return strconv.Quote(cut(k.Scope, maxShown)) + " " + strconv.Quote(cut(k.ID, maxShown))
}

// Hash returns 32 bytes that stand for the key in a store: the SHA-256 of both
// fields. It is part of the stored format and never changes.
func (k Key) Hash() [sha256.Size]byte { return digest(k.Scope, k.ID) }

func (k Key) check() error {
	switch {
	case k.Scope == "":
		return eventbus.Permanent(errors.New("idempotency: the key has no scope; say within what its id is unique, such as the operation's name"))
	case k.ID == "":
		return eventbus.Permanent(errors.New("idempotency: the key has no id, so repetitions can't be recognised"))
	}
	return nil
}

// digest hashes parts with their lengths, so that ("ab", "c") is not ("a", "bc").
func digest(parts ...string) [sha256.Size]byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.AppendUvarint(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// cut shortens s to at most n bytes at the boundary of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
