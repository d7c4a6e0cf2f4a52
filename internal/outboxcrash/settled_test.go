package outboxcrash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-go/millrace/outbox"
)

// settled says that these events have arrived and those are parked, and that the
// database knows it.
func (s *relayRun) settled(arrived, parked []string) func() (bool, error) {
	return func() (bool, error) {
		if !s.broker.has(arrived...) {
			return false, nil
		}
		found, err := s.parked()
		if err != nil || !slices.Equal(found, parked) {
			return false, err
		}
		left, err := s.left()
		return left == 0, err
	}
}

func (s *relayRun) parked() ([]string, error) {
	return s.strings("SELECT id FROM " + s.prefix + "_box_parked ORDER BY id")
}

// left counts the rows that are scheduled, or in the log and not known to be
// published. On SQLite, which has no gaps that hold deleting up, it counts all.
func (s *relayRun) left() (int, error) {
	var scheduled int
	if err := s.db.QueryRow("SELECT count(*) FROM " + s.prefix + "_box_scheduled").Scan(&scheduled); err != nil {
		return 0, err
	}
	var published int64
	var gaps []byte
	if err := s.db.QueryRow("SELECT published, gaps FROM "+s.prefix+"_box_relay").Scan(&published, &gaps); err != nil {
		return 0, err
	}
	positions, err := s.strings("SELECT position FROM " + s.prefix + "_box")
	if err != nil {
		return 0, err
	}
	if s.dialect == outbox.SQLite {
		return scheduled + len(positions), nil
	}
	missing := spans(gaps)
	for _, text := range positions {
		var p int64
		if _, err := fmt.Sscan(text, &p); err != nil {
			return 0, err
		}
		if p > published || slices.ContainsFunc(missing, func(s [2]int64) bool { return s[0] <= p && p <= s[1] }) {
			scheduled++
		}
	}
	return scheduled, nil
}

// spans decodes the gaps of the relay's row.
func spans(b []byte) (all [][2]int64) {
	if len(b) == 0 {
		return nil
	}
	b = b[1:] // the version
	next := func() int64 {
		v, n := binary.Uvarint(b)
		b = b[n:]
		return int64(v)
	}
	last := int64(0)
	for range next() {
		from := last + next()
		last = from + next()
		all = append(all, [2]int64{from, last})
	}
	return all
}

func (s *relayRun) describe() string {
	parked, err := s.parked()
	left, err2 := s.left()
	log, err3 := s.strings("SELECT id FROM " + s.prefix + "_box")
	return fmt.Sprintf("parked %v, left %d, log %v, errors %v", parked, left, log, errors.Join(err, err2, err3))
}
