package grpcresilience

import (
	"context"
	"strconv"

	"google.golang.org/grpc/metadata"

	"github.com/millrace-go/millrace/resilience"
)

// PreviousAttemptsMetadata is the key of how often a call was tried before.
const PreviousAttemptsMetadata = "grpc-previous-rpc-attempts"

// mostAttempts is what clients say and servers believe at most.
const mostAttempts = 100

// outgoing adds to an attempt's metadata how many there were before.
func outgoing(ctx context.Context) context.Context {
	n := resilience.PreviousAttempts(ctx)
	if n <= 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, PreviousAttemptsMetadata, strconv.Itoa(min(n, mostAttempts)))
}

// incoming reads it. There are two values when gRPC retries beneath a Retry;
// the higher one counts.
func incoming(ctx context.Context) context.Context {
	most := 0
	for _, v := range metadata.ValueFromIncomingContext(ctx, PreviousAttemptsMetadata) {
		if n, err := strconv.Atoi(v); err == nil && n <= mostAttempts {
			most = max(most, n)
		}
	}
	return resilience.WithPreviousAttempts(ctx, most)
}
