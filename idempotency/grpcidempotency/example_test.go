package grpcidempotency_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/grpcidempotency"
)

// A client repeats a call, here of the health service, with the same key.
func Example() {
	guard := idempotency.NewGuard(idempotency.NewMemoryStore(idempotency.MemoryConfig{}), idempotency.Policy{})
	server := grpc.NewServer(grpc.UnaryInterceptor(grpcidempotency.UnaryServerInterceptor(guard, grpcidempotency.Config{})))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	defer func() { server.Stop(); <-ended }()

	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(context.Background(), grpcidempotency.KeyMetadata, "k-1")
	for range 2 {
		var header metadata.MD
		r, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header))
		fmt.Println(r.GetStatus(), err, header.Get(grpcidempotency.ReplayedMetadata))
	}
	// Output:
	// SERVING <nil> []
	// SERVING <nil> [true]
}
