package idempotency

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// KeyHeader is the header field of the key of a request.
const KeyHeader = "Idempotency-Key"

// headerKey returns the key of a request; empty if it has none.
func headerKey(h http.Header, limit int) (string, error) {
	switch values := h.Values(KeyHeader); len(values) {
	case 0:
		return "", nil
	case 1:
		return ParseKey(values[0], limit)
	default:
		return "", errors.New("there is more than one header field of that name")
	}
}

// ParseKey reads the value of an Idempotency-Key field: a string of RFC 8941 in
// quotes, whose parameters are ignored, or the bare text that many clients send.
// A key has 1 to limit visible ASCII characters or, in quotes, spaces; "k" and k
// are the same key.
func ParseKey(value string, limit int) (string, error) {
	value = strings.Trim(value, " \t")
	key, err := value, error(nil)
	if strings.HasPrefix(value, `"`) {
		key, err = quotedKey(value[1:])
	} else if i := strings.IndexFunc(value, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`",;\`, r) }); i >= 0 {
		err = fmt.Errorf("character %q needs quotes around the key, or is not allowed", value[i:i+1])
	}
	switch {
	case err != nil:
		return "", err
	case key == "":
		return "", errors.New("the key is empty")
	case len(key) > limit:
		return "", fmt.Errorf("the key has %d characters, the limit is %d", len(key), limit)
	}
	return key, nil
}

// quotedKey reads s, which begins after the opening quote.
func quotedKey(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			if rest := strings.TrimLeft(s[i+1:], " "); rest != "" && rest[0] != ';' {
				return "", errors.New("there is more text after the closing quote")
			}
			return b.String(), nil
		case c == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", errors.New(`a backslash must stand before a quote or a backslash`)
			}
			b.WriteByte(s[i])
		case c < ' ' || c > '~':
			return "", fmt.Errorf("byte %#x is not allowed", c)
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("the closing quote is missing")
}
