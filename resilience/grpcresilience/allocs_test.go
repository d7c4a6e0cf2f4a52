package grpcresilience_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/grpcresilience"
)

// A policy that allocates nothing shows what the interceptors do: the call; for
// calls that must not be repeated, also the attempt and the options it learns by;
// for handlers what is known of the call.
func TestAllocations(t *testing.T) {
	policy := pipeline(t, retry(t, resilience.RetryConfig{}), breaker(t, 5), resilience.Must(resilience.NewBulkhead(resilience.BulkheadConfig{})))
	client := grpcresilience.UnaryClientInterceptor(policy, grpcresilience.ClientConfig{Idempotent: onlyGet})
	server, err := grpcresilience.UnaryServerInterceptor(policyOfHandlers(t), grpcresilience.ServerConfig{})
	require.NoError(t, err)
	ctx, in, out := context.Background(), wrapperspb.String("in"), &wrapperspb.StringValue{}
	invoker := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	info := &grpc.UnaryServerInfo{FullMethod: get}
	handler := func(context.Context, any) (any, error) { return out, nil }
	for name, c := range map[string]struct {
		most float64
		call func() error
	}{
		"idempotent": {1, func() error { return client(ctx, get, in, out, nil, invoker) }},
		"other":      {4, func() error { return client(ctx, charge, in, out, nil, invoker) }},
		"server":     {1, func() error { _, err := server(ctx, in, info, handler); return err }},
	} {
		var failed error
		n := testing.AllocsPerRun(200, func() {
			if err := c.call(); err != nil {
				failed = err
			}
		})
		require.NoError(t, failed)
		t.Logf("%s: %v allocations", name, n)
		require.LessOrEqual(t, n, c.most, name)
	}
}

func policyOfHandlers(t *testing.T) resilience.Policy {
	return pipeline(t, breaker(t, 5), resilience.Must(resilience.NewBulkhead(resilience.BulkheadConfig{})))
}
