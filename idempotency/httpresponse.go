package idempotency

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

// ReplayedHeader is "true" in a response that was given before.
const ReplayedHeader = "Idempotency-Replayed"

// response is a stored HTTP response. Encoded, it is a line of JSON and the
// body.
type response struct {
	Status int         `json:"status"`
	Header http.Header `json:"header,omitempty"`
	body   []byte
}

func (r response) encode() ([]byte, error) {
	head, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append(append(head, '\n'), r.body...), nil
}

func decodeResponse(b []byte) (response, error) {
	head, body, ok := bytes.Cut(b, []byte{'\n'})
	r := response{body: body}
	if err := json.Unmarshal(head, &r); err != nil || !ok {
		return response{}, fmt.Errorf("%w: the stored response is not in a format that this version reads", ErrNoResult)
	}
	if r.Status < 200 || r.Status > 999 {
		return response{}, fmt.Errorf("%w: the stored response has status %d", ErrNoResult, r.Status)
	}
	return r, nil
}

// write sends the response again.
func (r response) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.Header)
	w.Header().Set(ReplayedHeader, "true")
	w.WriteHeader(r.Status)
	if bodyAllowed(r.Status) {
		_, _ = w.Write(r.body)
	}
}

// notStored are fields of one connection or moment, and cookies, which are
// credentials.
var notStored = []string{
	"Connection", "Content-Length", "Date", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection",
	"Set-Cookie", "Te", "Trailer", "Transfer-Encoding", "Upgrade", ReplayedHeader,
}

// storedHeader is what the handler added to, or changed in, the fields before.
func storedHeader(before, after http.Header, omit []string) http.Header {
	h := http.Header{}
	for name, values := range after {
		name = http.CanonicalHeaderKey(name)
		if !slices.Contains(notStored, name) && !slices.Contains(omit, name) && !slices.Equal(before[name], values) {
			h[name] = values
		}
	}
	return h
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
