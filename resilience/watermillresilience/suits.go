package watermillresilience

import (
	"fmt"

	"github.com/millrace-go/millrace/resilience"
)

// suits returns what is wrong with p.
func suits(p resilience.Policy) error {
	described, err := resilience.NewPipeline("watermill", p)
	if err != nil {
		return fmt.Errorf("watermillresilience: %w", err)
	}
	for _, d := range described.Describe() {
		if d.Kind == "hedge" {
			return fmt.Errorf("watermillresilience: %v would handle or publish a message twice at a time", d)
		}
	}
	return nil
}
