package httpresilience_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience/httpresilience"
)

func TestRequestBodiesAreSentWhole(t *testing.T) {
	text := strings.Repeat("0123456789", 1000)
	for name, c := range map[string]struct {
		body    io.Reader
		length  int64
		maxBody int64
		sent    int
	}{
		"GetBody":                      {body: strings.NewReader(text), sent: 3},
		"held in memory":               {body: opaque(text), sent: 3},
		"held in memory, known length": {body: opaque(text), length: int64(len(text)), sent: 3},
		"just small enough":            {body: opaque(text), maxBody: int64(len(text)), sent: 3},
		"too large":                    {body: opaque(text), maxBody: int64(len(text)) - 1, sent: 1},
		"too large, known length":      {body: opaque(text), length: int64(len(text)), maxBody: 10, sent: 1},
		"not to be held":               {body: opaque(text), maxBody: -1, sent: 1},
		"none":                         {body: nil, sent: 3},
		"NoBody":                       {body: http.NoBody, sent: 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, answer(503, 503))
			r := request(t, "PUT", s.URL, c.body)
			if c.length > 0 {
				r.ContentLength = c.length
			}
			do(t, client(t, httpresilience.TransportConfig{MaxBody: c.maxBody}, retry()), r)
			want := text
			if c.body == nil || c.body == http.NoBody {
				want = ""
			}
			got := s.requests()
			require.Len(t, got, c.sent)
			for _, a := range got {
				require.True(t, a.whole)
				require.True(t, a.body == want, "%d bytes arrived", len(a.body))
			}
		})
	}
}

// failing is a body that can't be read to its end.
type failing struct{ io.Reader }

func (failing) Close() error { return nil }

func TestRequestBodyThatCantBeReadIsNotSent(t *testing.T) {
	s := serve(t, answer())
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, "half")
		_ = w.CloseWithError(io.ErrUnexpectedEOF)
	}()
	_, err := client(t, httpresilience.TransportConfig{}, retry()).Do(request(t, "PUT", s.URL, failing{r}))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Empty(t, s.requests())
}

func TestRequestBodyThatCantBeHadAgain(t *testing.T) {
	s := serve(t, answer(503))
	r := request(t, "PUT", s.URL, strings.NewReader("abc"))
	asked := 0
	r.GetBody = func() (io.ReadCloser, error) {
		asked++
		return nil, io.ErrClosedPipe
	}
	got := do(t, client(t, httpresilience.TransportConfig{}, retry()), r)
	require.Equal(t, 503, got.StatusCode, "what came of the first attempt stands")
	require.Equal(t, 1, asked)
	require.Len(t, s.requests(), 1)
}

func TestRequestTrailersAreTheCallers(t *testing.T) {
	seen := make(chan string, 1)
	s := serve(t, func(_ int, _ http.ResponseWriter, r *http.Request) { seen <- r.Trailer.Get("Sum") })
	r := request(t, "POST", s.URL, nil)
	r.Trailer = http.Header{"Sum": nil}
	pr, pw := io.Pipe()
	r.Body = pr
	go func() {
		_, _ = io.WriteString(pw, "abc")
		r.Trailer.Set("Sum", "42")
		_ = pw.Close()
	}()
	do(t, client(t, httpresilience.TransportConfig{}, retry()), r)
	require.Equal(t, "42", <-seen)
}

// slowBody is a handler that writes a part each time it is told to.
func slowBody(parts <-chan string, left chan<- struct{}) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, r *http.Request) {
		defer close(left)
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case p, ok := <-parts:
				if !ok {
					return
				}
				_, _ = io.WriteString(w, p)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}
}

func TestResponseBodyOutlivesThePolicy(t *testing.T) {
	parts, left := make(chan string), make(chan struct{})
	s := serve(t, slowBody(parts, left))
	limit := 300 * time.Millisecond
	resp, err := client(t, httpresilience.TransportConfig{}, retry(), timeout(limit), hedge(time.Hour)).Do(request(t, "GET", s.URL, nil))
	require.NoError(t, err)
	defer resp.Body.Close()
	past := time.NewTimer(limit + limit/2)
	<-past.C
	go func() {
		parts <- "a"
		parts <- "b"
		close(parts)
	}()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "ab", string(text))
	<-left
}

func TestResponseBodyThatIsClosedEndsTheRequest(t *testing.T) {
	left := make(chan struct{})
	s := serve(t, slowBody(nil, left))
	resp, err := client(t, httpresilience.TransportConfig{}, timeout(time.Hour)).Do(request(t, "GET", s.URL, nil))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	<-left
}

func TestResponseBodyEndsWithTheCallersContext(t *testing.T) {
	left := make(chan struct{})
	s := serve(t, slowBody(nil, left))
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := client(t, httpresilience.TransportConfig{}, timeout(time.Hour)).Do(request(t, "GET", s.URL, nil).WithContext(ctx))
	require.NoError(t, err)
	defer resp.Body.Close()
	read := make(chan error)
	go func() {
		_, err := io.ReadAll(resp.Body)
		read <- err
	}()
	cancel()
	require.ErrorIs(t, <-read, context.Canceled)
	<-left
}

func TestResponseBodyEndsWithTheClientsTimeout(t *testing.T) {
	left := make(chan struct{})
	s := serve(t, slowBody(nil, left))
	c := client(t, httpresilience.TransportConfig{}, timeout(time.Hour))
	c.Timeout = 200 * time.Millisecond
	resp, err := c.Do(request(t, "GET", s.URL, nil))
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	<-left
}

// TestResponseBodyEndsTheContextOfItsAttempt looks at what the base was given:
// nothing of the attempt may be left behind when the body was read, or closed.
func TestResponseBodyEndsTheContextOfItsAttempt(t *testing.T) {
	for name, finish := range map[string]func(io.ReadCloser){
		"read":   func(b io.ReadCloser) { _, _ = io.ReadAll(b) },
		"closed": func(b io.ReadCloser) { _ = b.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			var attempt context.Context
			c := client(t, httpresilience.TransportConfig{Base: baseFunc(func(r *http.Request) (*http.Response, error) {
				attempt = r.Context()
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("x"))}, nil
			})}, timeout(time.Hour))
			resp, err := c.Do(request(t, "GET", "http://x", nil))
			require.NoError(t, err)
			defer resp.Body.Close()
			require.NoError(t, attempt.Err())
			finish(resp.Body)
			require.ErrorIs(t, attempt.Err(), context.Canceled)
		})
	}
}

func TestUpgradedConnectionCanBeWrittenTo(t *testing.T) {
	s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, line)
	})
	resp, err := client(t, httpresilience.TransportConfig{}, timeout(time.Hour)).Do(request(t, "GET", s.URL, nil, "Connection", "Upgrade", "Upgrade", "echo"))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 101, resp.StatusCode)
	_, err = io.WriteString(resp.Body.(io.Writer), "hello\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "hello\n", line)
}

func TestDialIsBoundedByThePolicy(t *testing.T) {
	b := base(t)
	b.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	_, err := client(t, httpresilience.TransportConfig{Base: b}, timeout(50*time.Millisecond)).Do(request(t, "GET", "http://127.0.0.1:1", nil))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
