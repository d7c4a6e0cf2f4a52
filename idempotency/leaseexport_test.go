package idempotency

import "database/sql"

// OldLeases is the query of one step of SQLStore.Prune.
func OldLeases(db *sql.DB) string { return NewSQLStore(db, SQLite, SQLConfig{}).sql.old }

// EncodeResponse and DecodeResponse are the stored format of HTTP responses.
func EncodeResponse(status int, header map[string][]string, body []byte) ([]byte, error) {
	b, err := response{status, header, body}.encode()
	return kept{keptResult, b}.encode(), err
}

// DecodeResponse reads what EncodeResponse wrote.
func DecodeResponse(stored []byte) (status int, header map[string][]string, body []byte, err error) {
	k, err := decodeKept(stored)
	if err != nil {
		return 0, nil, nil, err
	}
	b, err := k.value(Key{"http:", "k"})
	if err != nil {
		return 0, nil, nil, err
	}
	r, err := decodeResponse(b)
	return r.Status, r.Header, r.body, err
}
