package storefront

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/millrace-go/millrace/examples/ecommerce/httpapi"
)

// Bounds of what an order may ask for.
const (
	maxBody     = 1 << 20
	maxLines    = 100
	maxQuantity = 1000
	maxName     = 100 // characters in a customer id or an idempotency key
	maxEmail    = 254
)

// request is the body of POST /orders.
type request struct {
	CustomerID string        `json:"customer_id"`
	Email      string        `json:"email"`
	Lines      []requestLine `json:"lines"`
}

type requestLine struct {
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

// hash tells a repeated request from another one with the same key.
func (r request) hash() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers can always be encoded
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// readRequest decodes and checks the body; what is wrong with it is a *httpapi.Problem.
func readRequest(w http.ResponseWriter, r *http.Request) (request, error) {
	var req request
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return req, badJSON(err)
	}
	if err := d.Decode(new(json.RawMessage)); !errors.Is(err, io.EOF) {
		if tooLarge(err) {
			return req, badJSON(err)
		}
		return req, httpapi.Invalid("body", "there is more after the JSON object")
	}
	return req, req.check()
}

func tooLarge(err error) bool {
	var large *http.MaxBytesError
	return errors.As(err, &large)
}

// badJSON says what a decoder's error means to the client.
func badJSON(err error) error {
	var wrongType *json.UnmarshalTypeError
	unknown, isUnknown := strings.CutPrefix(err.Error(), "json: unknown field ")
	switch {
	case tooLarge(err):
		return &httpapi.Problem{Status: http.StatusRequestEntityTooLarge, Field: "body", Detail: fmt.Sprintf("the body is larger than %d bytes", maxBody)}
	case errors.As(err, &wrongType) && wrongType.Field != "":
		return httpapi.Invalid(wrongType.Field, fmt.Sprintf("%s does not fit, want %s", wrongType.Value, wrongType.Type))
	case isUnknown:
		return httpapi.Invalid(strings.Trim(unknown, `"`), "unknown field")
	case errors.Is(err, io.EOF):
		return httpapi.Invalid("body", "the body is empty")
	}
	return httpapi.Invalid("body", "not a JSON object: "+err.Error())
}

// check reports everything that is wrong with a request but its SKUs.
func (r request) check() error {
	p := &httpapi.Problem{Status: http.StatusBadRequest}
	if why := badName(r.CustomerID); why != "" {
		p.Add("customer_id", why)
	}
	if why := badEmail(r.Email); why != "" {
		p.Add("email", why)
	}
	if len(r.Lines) == 0 {
		p.Add("lines", "at least one is required")
	}
	if len(r.Lines) > maxLines {
		p.Add("lines", fmt.Sprintf("%d are too many, at most %d", len(r.Lines), maxLines))
		return p.OrNil()
	}
	for i, l := range r.Lines {
		if l.SKU == "" {
			p.Add(fmt.Sprintf("lines[%d].sku", i), "required")
		}
		if l.Quantity < 1 || l.Quantity > maxQuantity {
			p.Add(fmt.Sprintf("lines[%d].quantity", i), fmt.Sprintf("%d is not between 1 and %d", l.Quantity, maxQuantity))
		}
	}
	return p.OrNil()
}

// badName says what is wrong with a customer id or an idempotency key.
func badName(s string) string {
	switch {
	case strings.TrimSpace(s) == "":
		return "required"
	case utf8.RuneCountInString(s) > maxName:
		return fmt.Sprintf("longer than %d characters", maxName)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "has characters that can't be printed"
	}
	return ""
}

func badEmail(s string) string {
	if s == "" {
		return "required"
	}
	if len(s) > maxEmail {
		return fmt.Sprintf("longer than %d bytes", maxEmail)
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s {
		return "not an e-mail address"
	}
	return ""
}
