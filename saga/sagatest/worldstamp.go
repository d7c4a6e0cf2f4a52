package sagatest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace-go/millrace/saga"
)

// stamped is text with times in it.
type stamped struct {
	text  [][]byte
	times []time.Time // between the texts
}

// append writes the text with the ranks of its times.
func (s stamped) append(b []byte, ranks map[time.Time]int) []byte {
	for i, t := range s.text {
		b = append(b, t...)
		if i < len(s.times) {
			b = strconv.AppendInt(append(b, '@'), int64(ranks[s.times[i]]), 10)
		}
	}
	return append(b, '\n')
}

// stampInstance takes apart what of an instance makes a difference.
func stampInstance(i saga.Instance) stamped {
	b := fmt.Appendf(nil, "%q %d %q %s %q ", i.Saga, i.Version, i.ID, i.Status, i.Error)
	if !i.Wake.IsZero() {
		b = append(b, '"')
		b = append(i.Wake.AppendFormat(b, time.RFC3339Nano), '"')
	}
	b = append(append(b, i.State...), withoutEnvelopes(i.Progress)...)
	return stamp(b)
}

// withoutEnvelopes leaves out what tells kept events apart and makes no
// difference.
func withoutEnvelopes(progress json.RawMessage) []byte {
	if !bytes.Contains(progress, []byte(`"early":`)) {
		return progress
	}
	var fields map[string]json.RawMessage
	var early []struct {
		Key      string            `json:"key"`
		Metadata map[string]string `json:"metadata"`
		Payload  []byte            `json:"payload"`
	}
	if json.Unmarshal(progress, &fields) != nil || json.Unmarshal(fields["early"], &early) != nil {
		return progress
	}
	for i := range early {
		early[i].Metadata = map[string]string{"step": early[i].Metadata[saga.MetadataStep]}
	}
	fields["early"], _ = json.Marshal(early)
	all, _ := json.Marshal(fields)
	return all
}

// stamp finds the times in JSON: strings in the form of RFC 3339.
func stamp(raw []byte) stamped {
	var s stamped
	from := 0
	for i := 0; i < len(raw); i++ {
		if raw[i] != '"' || len(raw)-i < len(`"2006-01-02T15:04:05Z"`) || raw[i+5] != '-' || raw[i+11] != 'T' {
			continue
		}
		end := bytes.IndexByte(raw[i+1:], '"')
		if end < 0 {
			break
		}
		t, err := time.Parse(time.RFC3339Nano, string(raw[i+1:i+1+end]))
		if err != nil {
			continue
		}
		s.text = append(s.text, raw[from:i])
		s.times = append(s.times, t.UTC())
		i += end + 1
		from = i + 1
	}
	s.text = append(s.text, raw[from:])
	return s
}
