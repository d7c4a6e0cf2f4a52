package httpresilience_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/httpresilience"
)

// duringAttempt calls fn in a bubble with the context of an attempt that has a
// second, and its caller's.
func duringAttempt(t *testing.T, fn func(t *testing.T, attempt context.Context, endCaller context.CancelCauseFunc)) {
	synctest.Test(t, func(t *testing.T) {
		caller, end := context.WithCancelCause(t.Context())
		defer end(nil)
		resp, err := through(t, timeout(time.Second), func(r *http.Request) (*http.Response, error) {
			fn(t, r.Context(), end)
			return nil, io.ErrUnexpectedEOF
		}).RoundTrip(request(t, "GET", "http://x", nil).WithContext(caller))
		require.Error(t, err)
		require.Nil(t, resp)
	})
}

func through(t *testing.T, policy resilience.Policy, send baseFunc) *httpresilience.Transport {
	t.Helper()
	transport, err := httpresilience.NewTransport(policy, httpresilience.TransportConfig{Base: send})
	require.NoError(t, err)
	return transport
}

func TestContextOfAnAttempt(t *testing.T) {
	errGone := errors.New("gone")
	var timedOut *resilience.TimeoutError
	for name, fn := range map[string]func(t *testing.T, attempt context.Context, endCaller context.CancelCauseFunc){
		"closes Done in time": func(t *testing.T, attempt context.Context, _ context.CancelCauseFunc) {
			begun := time.Now()
			<-attempt.Done()
			require.Equal(t, time.Second, time.Since(begun))
			require.Equal(t, context.Canceled, attempt.Err())
			require.ErrorAs(t, context.Cause(attempt), &timedOut)
		},
		"ends in time also if nobody watches": func(t *testing.T, attempt context.Context, _ context.CancelCauseFunc) {
			require.NoError(t, attempt.Err())
			require.NoError(t, context.Cause(attempt))
			time.Sleep(time.Second)
			require.Equal(t, context.Canceled, attempt.Err())
			require.ErrorAs(t, context.Cause(attempt), &timedOut)
			<-attempt.Done()
		},
		"ends with the caller's": func(t *testing.T, attempt context.Context, endCaller context.CancelCauseFunc) {
			time.AfterFunc(time.Millisecond, func() { endCaller(errGone) })
			<-attempt.Done()
			require.Equal(t, context.Canceled, attempt.Err())
			require.Equal(t, errGone, context.Cause(attempt))
		},
		"ends with the caller's also if nobody watches": func(t *testing.T, attempt context.Context, endCaller context.CancelCauseFunc) {
			endCaller(errGone)
			require.Equal(t, context.Canceled, attempt.Err())
			require.Equal(t, errGone, context.Cause(attempt))
		},
		"tells its children": func(t *testing.T, attempt context.Context, endCaller context.CancelCauseFunc) {
			child, cancel := context.WithCancel(attempt)
			defer cancel()
			endCaller(errGone)
			<-child.Done()
			require.Equal(t, errGone, context.Cause(child))
		},
	} {
		t.Run(name, func(t *testing.T) { duringAttempt(t, fn) })
	}
}

// The policy's context has ended when a body is read, but the attempt's has not,
// whether it was watched before or is from then on.
func TestContextOfAnAttemptWhileTheBodyIsRead(t *testing.T) {
	type key struct{}
	for name, watch := range map[string]func(context.Context){
		"watched":   func(ctx context.Context) { ctx.Done() },
		"unwatched": func(context.Context) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				caller, end := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
				defer end()
				var attempt context.Context
				resp, err := through(t, resilience.Must(resilience.NewPipeline("", hedge(time.Hour), timeout(time.Second))), func(r *http.Request) (*http.Response, error) {
					attempt = r.Context()
					watch(attempt)
					return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("x"))}, nil
				}).RoundTrip(request(t, "GET", "http://x", nil).WithContext(caller))
				require.NoError(t, err)
				defer resp.Body.Close()
				time.Sleep(time.Minute)
				require.NoError(t, attempt.Err())
				require.NoError(t, context.Cause(attempt))
				require.Equal(t, "value", attempt.Value(key{}))
				end()
				<-attempt.Done()
				require.Equal(t, context.Canceled, attempt.Err())
			})
		})
	}
}

// A call that goes well allocates, for the transport, what is known of it, its
// request, and here the response; for a middleware what is known of it.
func TestAllocations(t *testing.T) {
	policy := breaker(5)
	transport := through(t, policy, func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	})
	req := request(t, "GET", "http://x", nil)
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() {
		if resp, err := transport.RoundTrip(req); err == nil {
			_ = resp.Body.Close()
		}
	}), 3.)

	handler := resilience.Must(httpresilience.NewMiddleware(policy, httpresilience.MiddlewareConfig{}))(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	w := discarding{}
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() { handler.ServeHTTP(w, req) }), 1.)
}

// discarding is a response that nobody reads.
type discarding struct{}

func (discarding) Header() http.Header         { return nil }
func (discarding) Write(b []byte) (int, error) { return len(b), nil }
func (discarding) WriteHeader(int)             {}
