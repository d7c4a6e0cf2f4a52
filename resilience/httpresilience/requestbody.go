package httpresilience

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

// content is the body of a request, one for each attempt.
type content struct {
	first io.ReadCloser                 // the caller's; nil if there is none, or it was taken
	again func() (io.ReadCloser, error) // another one; nil if there is none
	none  bool
	watch bool // whether it matters that it was read
}

// contentOf returns the body of a request. If it may be sent more than once, and
// would not be there a second time, up to limit bytes of it are held in memory.
func contentOf(r *http.Request, once bool, limit int64) (content, error) {
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		return content{none: true}, nil
	case r.GetBody != nil || once || limit < 0 || r.ContentLength > limit:
		return content{first: r.Body, again: r.GetBody, watch: once}, nil
	}
	held, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return content{}, fmt.Errorf("httpresilience: read the request's body: %w", err)
	}
	if int64(len(held)) > limit {
		rest := io.MultiReader(bytes.NewReader(held), r.Body)
		return content{first: struct {
			io.Reader
			io.Closer
		}{rest, r.Body}}, nil
	}
	_ = r.Body.Close()
	again := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(held)), nil }
	first, _ := again()
	return content{first: first, again: again}, nil
}

func (c *content) replayable() bool { return c.none || c.again != nil }

// next returns the body for an attempt, nil for none. It is called under the
// exchange's lock.
func (c *content) next() (io.ReadCloser, error) {
	if c.none {
		return nil, nil
	}
	b := c.first
	c.first = nil
	if b == nil {
		if c.again == nil {
			return nil, errOnce
		}
		var err error
		if b, err = c.again(); err != nil {
			return nil, errors.Join(errOnce, fmt.Errorf("httpresilience: get the request's body again: %w", err))
		}
	}
	return b, nil
}

// requestBody is the body for one attempt, without a reader if there is none.
type requestBody struct {
	io.ReadCloser
	watch bool
	read  atomic.Bool
}

// reader returns what the transport reads: the bare body, which it may know a
// faster way for, unless it matters that it was read.
func (b *requestBody) reader() io.ReadCloser {
	if b.watch {
		return b
	}
	return b.ReadCloser
}

// Read is of io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.ReadCloser.Read(p)
}

// touched reports whether some of the body may have been sent.
func (b *requestBody) touched() bool { return b.read.Load() }
