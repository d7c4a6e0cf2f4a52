package storefront

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

func TestStreamBeginsWithEverythingAndGoesOnWithChanges(t *testing.T) {
	s := openStorefront(t, t.TempDir())
	do(s, "POST", "/orders", goodOrder)
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/events", nil)
	require.NoError(t, err)
	resp, err := server.Client().Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	frames := bufio.NewScanner(resp.Body)

	require.Contains(t, nextFrame(t, frames, "stock"), `"name":"Bread tin"`)
	require.Contains(t, nextFrame(t, frames, "stock"), `"name":"Hand mill"`)
	require.Contains(t, nextFrame(t, frames, "order"), `"status":"pending"`)

	show := s.showStock(func(context.Context, eventbus.Event[events.Stock]) error { return nil })
	require.NoError(t, show(ctx, eventbus.Event[events.Stock]{Data: events.Stock{SKU: "tin", Quantity: 3, Revision: 2}}))
	require.Contains(t, nextFrame(t, frames, "stock"), `"stock":3`)

	s.EndStreams()
	for frames.Scan() {
	}
	require.NoError(t, frames.Err(), "the stream ends cleanly")
}

// nextFrame returns the data of the next event, which must have the given name.
func nextFrame(t *testing.T, lines *bufio.Scanner, event string) string {
	t.Helper()
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			require.Equal(t, event, name)
			require.True(t, lines.Scan())
			return strings.TrimPrefix(lines.Text(), "data: ")
		}
	}
	t.Fatalf("the stream ended before a %s event: %v", event, lines.Err())
	return ""
}

func TestSlowPageIsDroppedAndOthersGoOn(t *testing.T) {
	l := newLive()
	slow, fast := l.join(), l.join()
	for i := range streamBuffer + 1 {
		l.send("stock", i)
		<-fast
	}
	for range streamBuffer {
		<-slow
	}
	_, open := <-slow
	require.False(t, open)
	l.send("stock", 1)
	require.NotEmpty(t, <-fast)
	l.leave(slow) // it leaves after it was dropped
	l.leave(fast)
}
