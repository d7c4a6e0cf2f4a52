package grpcresilience

import (
	"errors"
	"fmt"

	"github.com/millrace-go/millrace/resilience"
)

// kindsOf describes any policy.
func kindsOf(policy resilience.Policy) ([]resilience.Description, error) {
	p, err := resilience.NewPipeline("grpc", policy)
	if err != nil {
		return nil, err
	}
	return p.Describe(), nil
}

// forHandlers reports all that a server can't have in its policy.
func forHandlers(policy resilience.Policy) error {
	kinds, err := kindsOf(policy)
	if err != nil {
		return fmt.Errorf("grpcresilience: server interceptor: %w", err)
	}
	var errs []error
	for _, d := range kinds {
		switch d.Kind {
		case "retry", "hedge":
			errs = append(errs, fmt.Errorf("%v would call the handler twice; retries are the client's", d))
		case "fallback":
			errs = append(errs, fmt.Errorf("%v has no response to answer with", d))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("grpcresilience: server interceptor: %w", err)
	}
	return nil
}
