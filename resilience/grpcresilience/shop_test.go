package grpcresilience_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/grpcresilience"
)

// shop is a service without protoc: Get and Charge are unary, Watch, Upload and
// Chat are streams.
type shop struct {
	unary  func(ctx context.Context, in string) (string, error)
	stream func(stream grpc.ServerStream) error
}

const (
	get    = "/shop.Orders/Get"
	charge = "/shop.Orders/Charge"
	watch  = "/shop.Orders/Watch"
	upload = "/shop.Orders/Upload"
	chat   = "/shop.Orders/Chat"
)

func onlyGet(method string) bool { return method == get }

func unaryMethod(name string) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		in := &wrapperspb.StringValue{}
		if err := dec(in); err != nil {
			return nil, err
		}
		call := func(ctx context.Context, in any) (any, error) {
			out, err := srv.(*shop).unary(ctx, in.(*wrapperspb.StringValue).Value)
			if err != nil {
				return nil, err
			}
			return wrapperspb.String(out), nil
		}
		if intercept == nil {
			return call(ctx, in)
		}
		return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/shop.Orders/" + name}, call)
	}}
}

var (
	watchDesc  = &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true}
	uploadDesc = &grpc.StreamDesc{StreamName: "Upload", ClientStreams: true}
	chatDesc   = &grpc.StreamDesc{StreamName: "Chat", ServerStreams: true, ClientStreams: true}
)

func shopDesc() *grpc.ServiceDesc {
	d := &grpc.ServiceDesc{ServiceName: "shop.Orders", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{unaryMethod("Get"), unaryMethod("Charge")}}
	for _, s := range []*grpc.StreamDesc{watchDesc, uploadDesc, chatDesc} {
		described := *s
		described.Handler = func(srv any, stream grpc.ServerStream) error { return srv.(*shop).stream(stream) }
		d.Streams = append(d.Streams, described)
	}
	return d
}

// serve runs s on address and returns where, and what kills the server.
func serve(t testing.TB, address string, s *shop, opts ...grpc.ServerOption) (string, func()) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	return listener.Addr().String(), serveOn(t, listener, s, opts...)
}

func serveOn(t testing.TB, listener net.Listener, s *shop, opts ...grpc.ServerOption) (kill func()) {
	t.Helper()
	server := grpc.NewServer(opts...)
	server.RegisterService(shopDesc(), s)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	stopped := false
	kill = func() {
		if !stopped {
			stopped = true
			server.Stop()
			require.NoError(t, <-ended)
		}
	}
	t.Cleanup(kill)
	return kill
}

// dial returns a connection whose calls go through policy.
func dial(t testing.TB, target string, policy resilience.Policy, cfg grpcresilience.ClientConfig, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 10 * time.Second, Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1, MaxDelay: 5 * time.Millisecond}}),
		grpc.WithUnaryInterceptor(grpcresilience.UnaryClientInterceptor(policy, cfg)),
		grpc.WithStreamInterceptor(grpcresilience.StreamClientInterceptor(policy, cfg)))...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

func invoke(ctx context.Context, conn *grpc.ClientConn, method, in string, opts ...grpc.CallOption) (string, error) {
	out := &wrapperspb.StringValue{}
	err := conn.Invoke(ctx, method, wrapperspb.String(in), out, opts...)
	return out.Value, err
}

func send(t testing.TB, s grpc.ClientStream, text string) {
	t.Helper()
	require.NoError(t, s.SendMsg(wrapperspb.String(text)))
}

func receive(s interface{ RecvMsg(any) error }) (string, error) {
	m := &wrapperspb.StringValue{}
	err := s.RecvMsg(m)
	return m.Value, err
}

func retry(t testing.TB, cfg resilience.RetryConfig) *resilience.Retry {
	t.Helper()
	if cfg.Backoff.Base == 0 {
		cfg.Backoff.Base = time.Millisecond
	}
	r, err := resilience.NewRetry(cfg)
	require.NoError(t, err)
	return r
}

func breaker(t testing.TB, failures int) *resilience.CircuitBreaker {
	t.Helper()
	b, err := resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "orders", Failures: failures, OpenFor: time.Hour})
	require.NoError(t, err)
	return b
}

func timeout(t testing.TB, after time.Duration) *resilience.Timeout {
	t.Helper()
	p, err := resilience.NewTimeout(resilience.TimeoutConfig{Name: "attempt", After: after})
	require.NoError(t, err)
	return p
}

func pipeline(t testing.TB, policies ...resilience.Policy) *resilience.Pipeline {
	t.Helper()
	p, err := resilience.NewPipeline("orders", policies...)
	require.NoError(t, err)
	return p
}
