package grpcresilience_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/grpcresilience"
)

// A client tries calls of methods that only read again.
func ExampleUnaryClientInterceptor() {
	var calls atomic.Int32
	address, stop := run(grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if calls.Add(1) == 1 {
			return nil, status.Error(codes.Unavailable, "starting")
		}
		return handler(ctx, request)
	}))
	defer stop()

	policy := resilience.Must(resilience.NewPipeline("health",
		resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: 3})),
		resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "health"})),
		resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: 5 * time.Second})),
	))
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(grpcresilience.UnaryClientInterceptor(policy, grpcresilience.ClientConfig{
			Idempotent: func(method string) bool { return strings.HasPrefix(path.Base(method), "Check") },
		})))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	response, err := grpc_health_v1.NewHealthClient(conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	fmt.Println(response.GetStatus(), err, "after", calls.Load(), "calls")
	// Output: SERVING <nil> after 2 calls
}

// A breaker learns how streams end, and turns the next one away.
func ExampleStreamClientInterceptor() {
	address, stop := run(grpc.StreamInterceptor(func(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error {
		return status.Error(codes.Internal, "disk full")
	}))
	defer stop()

	breaker := resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "health", Failures: 1}))
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStreamInterceptor(grpcresilience.StreamClientInterceptor(breaker, grpcresilience.ClientConfig{})))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)
	for range 2 {
		stream, err := client.Watch(context.Background(), &grpc_health_v1.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		fmt.Println(status.Code(err), errors.Is(err, resilience.ErrOpen))
	}
	// Output:
	// Internal false
	// Unavailable true
}

// A server sheds load, except for what asks whether it is alive.
func ExampleUnaryServerInterceptor() {
	limiter := resilience.Must(resilience.NewRateLimiter(resilience.RateLimiterConfig{Name: "calls", Calls: 1, Per: time.Hour}))
	shed, err := grpcresilience.UnaryServerInterceptor(limiter, grpcresilience.ServerConfig{
		Exempt: func(method string) bool { return method == grpc_health_v1.Health_Check_FullMethodName },
	})
	if err != nil {
		log.Fatal(err)
	}
	address, stop := run(grpc.ChainUnaryInterceptor(shed))
	defer stop()

	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)
	for range 2 {
		_, err = client.List(context.Background(), &grpc_health_v1.HealthListRequest{})
		fmt.Println("List", status.Code(err))
	}
	_, err = client.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	fmt.Println("Check", status.Code(err))
	// Output:
	// List OK
	// List ResourceExhausted
	// Check OK
}

// A policy that would call a handler twice is refused.
func ExampleStreamServerInterceptor() {
	_, err := grpcresilience.StreamServerInterceptor(resilience.Must(resilience.NewPipeline("streams",
		resilience.Must(resilience.NewRetry(resilience.RetryConfig{Name: "again"})),
		resilience.Must(resilience.NewBulkhead(resilience.BulkheadConfig{Concurrency: 100})),
	)), grpcresilience.ServerConfig{})
	fmt.Println(strings.Contains(err.Error(), "would call the handler twice"))
	// Output: true
}

// WithClass is for a policy around a client without interceptors.
func ExampleWithClass() {
	err := grpcresilience.WithClass(status.Error(codes.NotFound, "no such order"))
	fmt.Println(err, "is", resilience.Classify(err))
	// Output: rpc error: code = NotFound desc = no such order is permanent
}

// run serves the health service until stop is called.
func run(option grpc.ServerOption) (address string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(option)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	return listener.Addr().String(), func() { server.Stop(); <-ended }
}
