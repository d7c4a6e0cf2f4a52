package storefront

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/httpapi"
)

const (
	streamBuffer = 256              // changes a slow page may lag behind
	keepAlive    = 15 * time.Second // silence after which a comment is sent
	writeTimeout = 10 * time.Second
)

// live tells open pages about changes.
type live struct {
	mu    sync.Mutex
	pages map[chan []byte]struct{}
	ended bool
}

func newLive() *live { return &live{pages: map[chan []byte]struct{}{}} }

// join returns the changes from now on. The channel is closed when the stream
// must end: at shutdown, or because the page is too slow.
func (l *live) join() chan []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	page := make(chan []byte, streamBuffer)
	if l.ended {
		close(page)
		return page
	}
	l.pages[page] = struct{}{}
	return page
}

func (l *live) leave(page chan []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(page)
}

// drop ends one stream; l.mu is held.
func (l *live) drop(page chan []byte) {
	if _, ok := l.pages[page]; ok {
		delete(l.pages, page)
		close(page)
	}
}

// send tells all pages. One that does not keep up is dropped: it reconnects and
// reads everything afresh.
func (l *live) send(event string, v any) {
	frame := sse(event, v)
	l.mu.Lock()
	defer l.mu.Unlock()
	for page := range l.pages {
		select {
		case page <- frame:
		default:
			l.drop(page)
		}
	}
}

// end ends all streams, present and future.
func (l *live) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for page := range l.pages {
		l.drop(page)
	}
}

// sse formats one server-sent event.
func sse(event string, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own plain types come here
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", event, data)
}

// stream serves GET /events: all products, the newest orders, then every change.
// A change may arrive twice or late; an order with the longer history and a
// product with the greater revision is the newer.
func (s *Service) stream(w http.ResponseWriter, r *http.Request) {
	changes := s.live.join() // before the snapshot, so that nothing falls in between
	defer s.live.leave(changes)
	snapshot, err := s.snapshot(r.Context())
	if err != nil {
		httpapi.WriteError(w, r, err)
		return
	}
	out := http.NewResponseController(w)
	if err := out.SetReadDeadline(time.Time{}); err != nil { // the server's bounds requests, not streams
		httpapi.WriteError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	write := func(frame []byte) error {
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := w.Write(frame); err != nil {
			return err
		}
		return out.Flush()
	}
	if r.Method == http.MethodHead || write(snapshot) != nil {
		return
	}
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case frame, ok := <-changes:
			if !ok || write(frame) != nil {
				return
			}
		case <-tick.C:
			if write([]byte(":\n\n")) != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// snapshot is what a page has to know when it opens.
func (s *Service) snapshot(ctx context.Context) ([]byte, error) {
	products, err := allProducts(ctx, s.db)
	if err != nil {
		return nil, err
	}
	orders, err := newestOrders(ctx, s.db, defaultLimit)
	if err != nil {
		return nil, err
	}
	frames := []byte("retry: 1000\n\n")
	for _, p := range products {
		frames = append(frames, sse("stock", p)...)
	}
	for _, o := range slices.Backward(orders) { // oldest first, as they will arrive
		frames = append(frames, sse("order", o)...)
	}
	return frames, nil
}
