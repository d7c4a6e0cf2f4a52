package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/millrace-go/millrace/examples/ecommerce/audit"
	"github.com/millrace-go/millrace/examples/ecommerce/httpapi"
)

// handler serves the storefront and the audit where the storefront runs, and
// the health of the process everywhere.
func (s *shop) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/healthz", httpapi.Methods{"GET": s.healthz})
	mux.Handle("/readyz", httpapi.Methods{"GET": s.readyz})
	if s.front != nil {
		mux.Handle("/audit", httpapi.Methods{"GET": s.audit})
		mux.Handle("/", s.front.Handler())
	}
	return mux
}

// healthz answers 200 while the process is alive.
func (s *shop) healthz(w http.ResponseWriter, _ *http.Request) {
	httpapi.WriteJSON(w, http.StatusOK, "application/json", map[string]string{"status": "ok"})
}

// readyz answers 200 when all services of this process take events and the
// storefront, if it is here, has something to sell.
func (s *shop) readyz(w http.ResponseWriter, r *http.Request) {
	if err := s.ready(r.Context()); err != nil {
		httpapi.WriteError(w, r, &httpapi.Problem{Status: http.StatusServiceUnavailable, Detail: err.Error()})
		return
	}
	httpapi.WriteJSON(w, http.StatusOK, "application/json", map[string]string{"status": "ready"})
}

func (s *shop) ready(ctx context.Context) error {
	for _, svc := range s.services {
		select {
		case <-svc.Ready():
		default:
			return fmt.Errorf("service %s has not started yet", svc.Name())
		}
	}
	if s.front != nil {
		return s.front.CanSell(ctx)
	}
	return nil
}

func (s *shop) audit(w http.ResponseWriter, r *http.Request) {
	report, err := audit.Run(r.Context(), s.cfg.data)
	if err != nil {
		httpapi.WriteError(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	httpapi.WriteJSON(w, http.StatusOK, "application/json", report)
}
