package httpapi

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Methods serves one path by the request's method.
type Methods map[string]http.HandlerFunc

// ServeHTTP refuses methods that the path does not have.
func (m Methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	h, ok := m[method]
	if !ok {
		allowed := strings.Join(slices.Sorted(maps.Keys(m)), ", ")
		w.Header().Set("Allow", allowed)
		WriteError(w, r, &Problem{Status: http.StatusMethodNotAllowed, Detail: r.URL.Path + " has no " + r.Method + ", only " + allowed})
		return
	}
	h(w, r)
}
