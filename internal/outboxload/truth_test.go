package outboxload

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"
)

const ownKeys = 2 // of the neighbours

func (l *load) createTables() {
	l.t.Helper()
	for _, statement := range []string{
		"CREATE TABLE counters (k VARCHAR(40) NOT NULL PRIMARY KEY, n BIGINT NOT NULL)",
		"CREATE TABLE truth (id BIGINT NOT NULL PRIMARY KEY, k VARCHAR(40) NOT NULL, n BIGINT NOT NULL)",
	} {
		_, err := l.db.Exec(statement)
		require.NoError(l.t, err)
	}
	insert := l.db.Dialect.Rebind("INSERT INTO counters (k, n) VALUES (?, 0)")
	for i := range l.keys {
		_, err := l.db.Exec(insert, fmt.Sprintf("k%d", i))
		require.NoError(l.t, err)
	}
	for i := range ownKeys {
		_, err := l.db.Exec(insert, longKey(i))
		require.NoError(l.t, err)
	}
}

// committed returns what the database says was committed.
func (l *load) committed() []wire {
	l.t.Helper()
	rows, err := l.db.Query("SELECT id, k, n FROM truth")
	require.NoError(l.t, err)
	defer rows.Close()
	var all []wire
	for rows.Next() {
		var e wire
		var id int64
		require.NoError(l.t, rows.Scan(&id, &e.Key, &e.N))
		e.ID = strconv.FormatInt(id, 10)
		all = append(all, e)
	}
	require.NoError(l.t, rows.Err())
	return all
}

// verify compares what arrived with what was committed, and returns how many
// events that were.
func (l *load) verify() int {
	l.t.Helper()
	truth := map[string]wire{}
	for _, e := range l.committed() {
		truth[e.ID] = e
	}
	l.broker.mu.Lock()
	defer l.broker.mu.Unlock()
	require.NotEmpty(l.t, truth)
	arrived := 0
	for key, events := range l.broker.keys {
		last := int64(0)
		for _, e := range events {
			arrived++
			require.Equal(l.t, truth[e.ID], e, "an event that was not committed like that, or not at all")
			require.Greater(l.t, e.N, last, "key %s: %d first arrived after %d", key, e.N, last)
			last = e.N
		}
	}
	require.Equal(l.t, len(truth), arrived)
	return arrived
}

// watchGaps looks how many runs of missing positions the relay's row holds.
func (l *load) watchGaps(ctx context.Context) {
	for pause(ctx, 50*time.Millisecond) {
		var gaps []byte
		if err := l.db.QueryRowContext(ctx, "SELECT gaps FROM millrace_outbox_relay").Scan(&gaps); err != nil || len(gaps) < 2 {
			continue
		}
		n, _ := binary.Uvarint(gaps[1:])
		l.gaps, l.gapBytes = max(l.gaps, int(n)), max(l.gapBytes, len(gaps))
	}
}
