// Package target lets a wrapper pass a call to a policy as one object, without
// functions and values beside it that would be allocated for each call.
package target

import "context"

// Target is the function at the centre of a call, and its result.
type Target interface {
	Run(ctx context.Context) error
	// Fork returns a target for an attempt beside others, Join takes over the
	// result of the one that counts.
	Fork() Target
	Join(fork Target)
}

// Do runs t through a resilience.Policy. Package resilience sets it.
var Do func(ctx context.Context, policy any, t Target) error
