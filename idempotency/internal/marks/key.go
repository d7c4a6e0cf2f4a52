// Package marks holds what the inboxes of database/sql and of pgx share: the
// form of marks, their SQL, the memory of recent ones and the order of a batch.
package marks

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Key is an idempotency.Mark, to which it converts.
type Key struct {
	Consumer, Source, ID string
}

// String names the event in errors.
func (k Key) String() string {
	return fmt.Sprintf("event %s of source %q for consumer %q", k.ID, k.Source, k.Consumer)
}

// Check reports a key that could not tell repetitions apart.
func (k Key) Check() error {
	if k.Consumer == "" {
		return errors.New("the consumer is empty: an event outside of a consumer group can't be told from the same one handled elsewhere; call the handler from eventbus.Subscribe, or Transact with a Mark")
	}
	if k.ID == "" {
		return errors.New("the event has no id, so repetitions can't be recognised")
	}
	return nil
}

// Digest is a name of fixed size that no other key has.
type Digest [sha256.Size]byte

// Digest returns the digest of k. It does not allocate for keys of usual length.
func (k Key) Digest() Digest {
	var room [512]byte
	b := binary.AppendUvarint(room[:0], uint64(len(k.Consumer)))
	b = append(b, k.Consumer...)
	b = binary.AppendUvarint(b, uint64(len(k.Source)))
	b = append(b, k.Source...)
	b = append(b, k.ID...)
	return sha256.Sum256(b)
}

const (
	maxStored = 255 // bytes of a column, so that three of them fit into every index
	hashed    = "sha256:"
)

// Stored returns k as it is kept in the table, the same on every database.
func (k Key) Stored() Key {
	return Key{stored(k.Consumer), stored(k.Source), stored(k.ID)}
}

// stored keeps up to 255 bytes of printable ASCII as they are. Anything else,
// which some database would refuse, cut or compare by rules of a language, is
// replaced by its SHA-256; so is what looks like such a replacement.
func stored(s string) string {
	if len(s) <= maxStored && !strings.HasPrefix(s, hashed) && isPrintableASCII(s) {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return hashed + hex.EncodeToString(sum[:])
}

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
