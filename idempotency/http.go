package idempotency

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
)

// HTTPConfig configures Guard.HTTP. The zero value is safe for an API whose
// clients trust each other; set Scope otherwise.
type HTTPConfig struct {
	// Scope returns whose key it is: the account, tenant or principal that the
	// request was authenticated as, so that nobody gets the response to another's
	// request by guessing his key. Wrap the middleware in the authentication, not
	// the other way round. Defaults to one scope for all.
	Scope func(*http.Request) string

	// Required answers requests without a key with 400. By default they go to the
	// handler unguarded.
	Required bool

	// Methods that are guarded; others go to the handler. Defaults to POST and
	// PATCH.
	Methods []string

	// IssuedAt returns when the client made the key, or the zero time, for the
	// refusal of old keys: see the option IssuedAt. TimeOfUUID reads UUIDs of
	// version 7. By default nobody knows.
	IssuedAt func(r *http.Request, key string) time.Time

	// Keep says whether the response of a status is stored. One that is not
	// releases the key, and a repetition runs the handler again. Defaults to all
	// but 5xx and those that say "not now" or "not you": 401, 403, 407, 408, 425,
	// 429.
	Keep func(status int) bool

	// OmitHeaders are response fields that are not stored, on top of those of a
	// connection, Date and Set-Cookie.
	OmitHeaders []string

	// Wait is how long a duplicate waits for the first one's response before it
	// gets 409. Defaults to not at all.
	Wait time.Duration

	// MaxBody bounds the request's body, which is held in memory, in bytes; more is
	// 413. Defaults to 1 MiB.
	MaxBody int64

	// MaxKey bounds the key in characters; more is 400. Defaults to 255.
	MaxKey int

	// Docs is the URL of the page about problems that error responses link to, with
	// the kind of the problem as anchor. Defaults to Millrace's own.
	Docs string
}

// HTTP returns a middleware for handlers whose requests may be repeated with
// the same Idempotency-Key (draft-ietf-httpapi-idempotency-key-header). The
// first request runs the handler, and its response is stored: status, body, and
// the header fields that the handler set. A repetition with the same method,
// path, query and body gets that response, with Idempotency-Replayed: true.
// Another request with the same key gets 422, one while the first is in progress
// 409 with Retry-After, one that the store can't judge because it fails 503: the
// handler never runs without a claim. Errors are of type
// application/problem+json.
//
// The response is sent after it was stored. One that is flushed by the handler,
// or whose body is larger than Policy.MaxResult, is sent as it comes; the latter
// is not stored, and repetitions get 409. Trailers are not stored, and
// connections can't be hijacked.
//
// The handler goes on when the client leaves, so that the repetition finds a
// response; its context ends when the claim is lost, or after Policy.MaxHold. A
// panic releases the key, and goes on.
func (g *Guard) HTTP(c HTTPConfig) func(http.Handler) http.Handler {
	if len(c.Methods) == 0 {
		c.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	if c.Keep == nil {
		c.Keep = keepStatus
	}
	c.MaxBody, c.MaxKey, c.Docs = cmp.Or(c.MaxBody, 1<<20), cmp.Or(c.MaxKey, 255), cmp.Or(c.Docs, problemDocs)
	omit := make([]string, len(c.OmitHeaders))
	for i, name := range c.OmitHeaders {
		omit[i] = http.CanonicalHeaderKey(name)
	}
	c.OmitHeaders = omit
	return func(next http.Handler) http.Handler { return &guarded{g, c, next} }
}

func keepStatus(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired,
		http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status < 500
}

// guarded is a handler behind the middleware.
type guarded struct {
	guard  *Guard
	config HTTPConfig
	next   http.Handler
}

// errNotKept has the key released.
var errNotKept = errors.New("the response is not one that is kept")

// ServeHTTP is of http.Handler.
func (h *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !slices.Contains(h.config.Methods, r.Method) {
		h.next.ServeHTTP(w, r)
		return
	}
	key, err := headerKey(r.Header, h.config.MaxKey)
	switch {
	case err != nil:
		keyProblem(err).write(w, h.config.Docs)
		return
	case key == "" && h.config.Required:
		keyMissing.write(w, h.config.Docs)
		return
	case key == "":
		h.next.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.config.MaxBody))
	if err != nil {
		bodyProblem(err).write(w, h.config.Docs)
		return
	}
	h.serve(w, r, key, body)
}

func (h *guarded) serve(w http.ResponseWriter, r *http.Request, key string, body []byte) {
	c, err := h.call(r, key, body)
	if err != nil {
		h.refuse(w, c, err)
		return
	}
	var rec *recorder
	result, replayed, err := h.guard.run(r.Context(), c, func(ctx context.Context, _ Claim) (kept, error) {
		rec = newRecorder(w, h.guard.policy.MaxResult)
		h.next.ServeHTTP(rec, withBody(r, ctx, body))
		result, err := rec.kept(h.config.OmitHeaders)
		if err == nil && !h.config.Keep(rec.status) {
			err = errNotKept
		}
		return result, err
	})
	switch {
	case replayed:
		h.replay(w, c, result)
	case rec != nil && (rec.sent || err == nil || errors.Is(err, errNotKept) || errors.Is(err, ErrUnrecorded)):
		_ = rec.send() // it fails only if the client has gone
	default:
		h.refuse(w, c, err)
	}
}

func (h *guarded) call(r *http.Request, key string, body []byte) (call, error) {
	scope := ""
	if h.config.Scope != nil {
		scope = h.config.Scope(r)
	}
	sum := digest(r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(body))
	opts := []CallOption{WaitAtMost(h.config.Wait), Detached(), func(c *call) { c.fingerprint = sum[:] }}
	if h.config.IssuedAt != nil {
		opts = append(opts, IssuedAt(h.config.IssuedAt(r, key)))
	}
	return h.guard.call(Key{Scope: "http:" + scope, ID: key}, opts)
}

func (h *guarded) replay(w http.ResponseWriter, c call, result kept) {
	b, err := result.value(c.key)
	var r response
	if err == nil {
		r, err = decodeResponse(b)
	}
	if err != nil {
		h.refuse(w, c, err)
		return
	}
	r.write(w)
}

func (h *guarded) refuse(w http.ResponseWriter, c call, err error) {
	p := outcomeProblem(err)
	if p.status == http.StatusServiceUnavailable && h.guard != nil {
		h.guard.log(c.key).Error("idempotency: a request was refused", "error", err)
	}
	p.write(w, h.config.Docs)
}

func withBody(r *http.Request, ctx context.Context, body []byte) *http.Request { //nolint:revive // the request is what it is about
	r = r.WithContext(ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength, r.TransferEncoding = int64(len(body)), nil
	return r
}
