package watermillsql

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// defaultBatch is how many events a subscriber reads at a time.
const defaultBatch = 100

// partitions is for a message's hash to be divided by.
const partitions = "(SELECT value FROM millrace_meta WHERE name = 'partitions')"

// row is a message as the tables have it.
type row struct {
	hash                       int64
	key, id, metadata, payload []byte
	due                        int64 // microseconds since 1970; 0: at once
}

func rowOf(m *message.Message) (row, error) {
	due, err := driver.Due(m)
	if err != nil {
		return row{}, fmt.Errorf("watermillsql: %w", err)
	}
	key := driver.Key(m)
	r := row{hash: hash(key), key: []byte(key), id: []byte(m.UUID), metadata: driver.EncodeMetadata(m.Metadata), payload: m.Payload}
	if r.payload == nil {
		r.payload = []byte{}
	}
	if due.After(time.Now()) {
		r.due = due.Add(time.Microsecond - time.Nanosecond).UnixMicro() // nothing is early
	}
	return r, nil
}

func rowsOf(topic string, messages message.Messages) ([]row, error) {
	if err := driver.CheckTopic(topic); err != nil {
		return nil, fmt.Errorf("watermillsql: %w", err)
	}
	rows := make([]row, len(messages))
	for i, m := range messages {
		var err error
		if rows[i], err = rowOf(m); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// hash is that of package sqlbus; without a key there is no order.
func hash(key string) int64 {
	if key == "" {
		return int64(rand.Uint32())
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // never fails
	return int64(h.Sum32())
}

// unmarshal reads position, id, metadata and payload.
func unmarshal(scanner sql.Scanner) (sql.Row, error) {
	var r sql.Row
	if err := scanner.Scan(&r.Offset, &r.UUID, &r.Metadata, &r.Payload); err != nil {
		return sql.Row{}, fmt.Errorf("watermillsql: read an event: %w", err)
	}
	metadata, err := driver.DecodeMetadata(r.Metadata)
	if err != nil {
		return sql.Row{}, fmt.Errorf("watermillsql: event %s at position %d: %w", r.UUID, r.Offset, err)
	}
	r.Msg = message.NewMessage(string(r.UUID), r.Payload)
	r.Msg.Metadata = metadata
	return r, nil
}
