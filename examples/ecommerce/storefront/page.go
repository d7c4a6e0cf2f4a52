package storefront

import (
	_ "embed"
	"net/http"
)

//go:embed page.html
var pageHTML []byte

// page serves GET /, which shows what /products and /events say.
func (s *Service) page(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'")
	w.Write(pageHTML) //nolint:errcheck // the client is gone, nobody is left to tell
}
