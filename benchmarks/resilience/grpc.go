package main

import (
	"context"

	"github.com/failsafe-go/failsafe-go/failsafegrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/grpcresilience"
)

// invoke is a connection that sends nothing.
func invoke(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
	return work(ctx)
}

func grpcClients() group {
	policy := newPipeline()
	always := func(string) bool { return true }
	safe := failsafegrpc.NewUnaryClientInterceptor(failsafePolicies(failsafegrpc.NewRetryPolicyBuilder[any]())...)
	bare := func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return invoker(ctx, method, request, reply, conn, opts...)
	}
	return group{title: "gRPC client, retry > breaker > timeout", bare: invoked("invoker", bare), variants: []variant{
		invoked("by hand: the policy", func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return policy.Do(ctx, func(ctx context.Context) error { return invoker(ctx, method, request, reply, conn, opts...) })
		}),
		invoked("millrace interceptor", grpcresilience.UnaryClientInterceptor(policy, grpcresilience.ClientConfig{Idempotent: always})),
		invoked("failsafe-go interceptor", safe),
	}}
}

func invoked(name string, through grpc.UnaryClientInterceptor) variant {
	return variant{name, func() func() error {
		request, reply := &emptypb.Empty{}, &emptypb.Empty{}
		return func() error { return through(ctx, "/shop.Orders/Get", request, reply, nil, invoke) }
	}}
}

func grpcServers() group {
	policy := newBreaker(resilience.CircuitBreakerConfig{})
	ours := resilience.Must(grpcresilience.UnaryServerInterceptor(policy, grpcresilience.ServerConfig{}))
	safe := failsafegrpc.NewUnaryServerInterceptor(failsafeBreaker[any]())
	bare := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return handler(ctx, request)
	}
	return group{title: "gRPC server, breaker", bare: answered("handler", bare), variants: []variant{
		answered("by hand: the policy", func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return resilience.Get(ctx, policy, func(ctx context.Context) (any, error) { return handler(ctx, request) })
		}),
		answered("millrace interceptor", ours),
		answered("failsafe-go interceptor", safe),
	}}
}

func answered(name string, through grpc.UnaryServerInterceptor) variant {
	return variant{name, func() func() error {
		request, info := &emptypb.Empty{}, &grpc.UnaryServerInfo{FullMethod: "/shop.Orders/Get"}
		handler := func(ctx context.Context, _ any) (any, error) { return request, work(ctx) }
		return func() error {
			_, err := through(ctx, request, info, handler)
			return err
		}
	}}
}
