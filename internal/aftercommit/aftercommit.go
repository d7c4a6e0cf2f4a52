// Package aftercommit lets code that writes within a transaction ask for
// something to happen once that transaction has committed, without knowing who
// commits it. The outbox asks for its relay to be woken; whoever owns the
// transaction (the inbox, outbox.Transact) runs the hooks.
package aftercommit

import (
	"context"
	"sync"
)

type key struct{}

// Hooks collects functions of one transaction. Its methods are safe for
// concurrent use.
type Hooks struct {
	mu    sync.Mutex
	hooks map[any]func()
}

// With returns a context that collects hooks, and the collection.
func With(ctx context.Context) (context.Context, *Hooks) {
	h := &Hooks{}
	return context.WithValue(ctx, key{}, h), h
}

// Do has f called after the commit of the transaction that ctx belongs to. Of
// several calls with one id only the first counts. It reports false when
// nobody collects.
func Do(ctx context.Context, id any, f func()) bool {
	h, _ := ctx.Value(key{}).(*Hooks)
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hooks == nil {
		h.hooks = map[any]func(){}
	}
	if _, known := h.hooks[id]; !known {
		h.hooks[id] = f
	}
	return true
}

// Run calls the hooks and forgets them.
func (h *Hooks) Run() {
	h.mu.Lock()
	hooks := h.hooks
	h.hooks = nil
	h.mu.Unlock()
	for _, f := range hooks {
		f()
	}
}
