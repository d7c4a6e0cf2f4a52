package grpcidempotency_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/grpcidempotency"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type handler func(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error)

// method describes shop.Charges/<name> without protoc.
func method(name string) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		in := &wrapperspb.StringValue{}
		if err := dec(in); err != nil {
			return nil, err
		}
		call := func(ctx context.Context, in any) (any, error) {
			return srv.(handler)(ctx, in.(*wrapperspb.StringValue))
		}
		return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/shop.Charges/" + name}, call)
	}}
}

// serve runs h behind the interceptor and returns a client.
func serve(t testing.TB, g *idempotency.Guard, c grpcidempotency.Config, h handler) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.UnaryInterceptor(grpcidempotency.UnaryServerInterceptor(g, c)))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "shop.Charges", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{method("Charge"), method("Refund")}}, h)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:bufnet", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-ended)
	})
	return conn
}

// call returns the response and whether it was replayed. keys are of the call.
func call(ctx context.Context, conn *grpc.ClientConn, method, in string, keys ...string) (out string, replayed bool, err error) {
	for _, k := range keys {
		ctx = metadata.AppendToOutgoingContext(ctx, grpcidempotency.KeyMetadata, k)
	}
	var header metadata.MD
	response := &wrapperspb.StringValue{}
	err = conn.Invoke(ctx, "/shop.Charges/"+method, wrapperspb.String(in), response, grpc.Header(&header))
	return response.Value, len(header.Get(grpcidempotency.ReplayedMetadata)) == 1, err
}

// requireStatus demands a status with its reason and returns the delay.
func requireStatus(t testing.TB, err error, code codes.Code, reason string) (after time.Duration) {
	t.Helper()
	s := status.Convert(err)
	require.Equal(t, code, s.Code(), s.Message())
	found := ""
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			require.Equal(t, "millrace.idempotency", d.Domain)
			found = d.Reason
		case *errdetails.RetryInfo:
			after = d.RetryDelay.AsDuration()
		}
	}
	require.Equal(t, reason, found)
	return after
}

func newGuard(s idempotency.Store, p idempotency.Policy) *idempotency.Guard {
	p.Logger = slog.New(slog.DiscardHandler)
	return idempotency.NewGuard(s, p)
}

func memory() *idempotency.MemoryStore {
	return idempotency.NewMemoryStore(idempotency.MemoryConfig{})
}

func TestResponseIsStoredAndReplayed(t *testing.T) {
	var calls atomic.Int32
	conn := serve(t, newGuard(memory(), idempotency.Policy{}), grpcidempotency.Config{}, func(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		calls.Add(1)
		if c, ok := idempotency.ClaimFrom(ctx); !ok || c.Token <= 0 {
			t.Error("the handler has no claim")
		}
		return wrapperspb.String("receipt for " + in.Value), nil
	})
	for i, k := range []string{"k", `"k"`, "k"} {
		out, replayed, err := call(t.Context(), conn, "Charge", "42 EUR", k)
		require.NoError(t, err)
		require.Equal(t, "receipt for 42 EUR", out)
		require.Equal(t, i > 0, replayed)
	}
	require.EqualValues(t, 1, calls.Load())
	_, _, err := call(t.Context(), conn, "Charge", "43 EUR", "k")
	require.Zero(t, requireStatus(t, err, codes.FailedPrecondition, "KEY_REUSED"))
	_, _, err = call(t.Context(), conn, "Refund", "42 EUR", "k")
	requireStatus(t, err, codes.FailedPrecondition, "KEY_REUSED")
	for range 2 {
		_, replayed, err := call(t.Context(), conn, "Refund", "42 EUR", "k2")
		require.NoError(t, err)
		_ = replayed
	}
	require.EqualValues(t, 2, calls.Load())
}

func TestCallInFlightIsAbortedOrWaits(t *testing.T) {
	store := memory()
	begun, end := make(chan struct{}), make(chan struct{})
	conn := serve(t, newGuard(store, idempotency.Policy{}), grpcidempotency.Config{}, func(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		close(begun)
		<-end
		return wrapperspb.String("ok"), nil
	})
	patient := serve(t, newGuard(store, idempotency.Policy{}), grpcidempotency.Config{Wait: time.Minute}, func(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		return nil, errors.New("called twice")
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if out, replayed, err := call(t.Context(), conn, "Charge", "x", "k"); out != "ok" || replayed || err != nil {
			t.Errorf("the first got %q, %v", out, err)
		}
	})
	<-begun
	_, _, err := call(t.Context(), conn, "Charge", "x", "k")
	after := requireStatus(t, err, codes.Aborted, "IN_PROGRESS")
	require.Positive(t, after)
	require.LessOrEqual(t, after, 5*time.Second)
	wg.Go(func() {
		if out, replayed, err := call(t.Context(), patient, "Charge", "x", "k"); out != "ok" || !replayed || err != nil {
			t.Errorf("who waited got %q, %v", out, err)
		}
	})
	close(end)
	wg.Wait()
}

func TestKeys(t *testing.T) {
	config := grpcidempotency.Config{
		MaxKey:   10,
		Required: func(m string) bool { return m == "/shop.Charges/Charge" },
		Scope: func(ctx context.Context) string {
			return strings.Join(metadata.ValueFromIncomingContext(ctx, "tenant"), "")
		},
	}
	var calls atomic.Int32
	conn := serve(t, newGuard(memory(), idempotency.Policy{}), config, func(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		calls.Add(1)
		return wrapperspb.String("ok"), nil
	})
	_, _, err := call(t.Context(), conn, "Charge", "x")
	requireStatus(t, err, codes.InvalidArgument, "KEY_MISSING")
	for _, bad := range [][]string{{""}, {`"a`}, {"a b"}, {"12345678901"}, {"a", "a"}} {
		_, _, err := call(t.Context(), conn, "Charge", "x", bad...)
		requireStatus(t, err, codes.InvalidArgument, "KEY_INVALID")
	}
	require.Zero(t, calls.Load())
	for range 2 {
		_, _, err = call(t.Context(), conn, "Refund", "x")
		require.NoError(t, err)
	}
	require.EqualValues(t, 2, calls.Swap(0))
	for range 2 {
		for _, tenant := range []string{"a", "b"} {
			_, _, err := call(metadata.AppendToOutgoingContext(t.Context(), "tenant", tenant), conn, "Charge", "x", "k")
			require.NoError(t, err)
		}
	}
	require.EqualValues(t, 2, calls.Load(), "once for each tenant")
}

func TestErrorsOfTheHandlerAreReturnedAndReleaseTheKey(t *testing.T) {
	var calls atomic.Int32
	conn := serve(t, newGuard(memory(), idempotency.Policy{}), grpcidempotency.Config{}, func(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		if calls.Add(1) < 3 {
			return nil, status.Error(codes.ResourceExhausted, "later")
		}
		return wrapperspb.String("ok"), nil
	})
	for range 2 {
		_, _, err := call(t.Context(), conn, "Charge", "x", "k")
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		require.Equal(t, "later", status.Convert(err).Message())
	}
	out, replayed, err := call(t.Context(), conn, "Charge", "x", "k")
	require.NoError(t, err)
	require.False(t, replayed)
	require.Equal(t, "ok", out)
}

func TestClientThatLeavesFindsItsResponse(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	conn := serve(t, newGuard(memory(), idempotency.Policy{}), grpcidempotency.Config{Wait: time.Minute}, func(ctx context.Context, _ *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		close(begun)
		<-gone
		return wrapperspb.String("charged"), ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	_, _, err := call(ctx, conn, "Charge", "x", "k")
	require.Equal(t, codes.Canceled, status.Code(err))
	close(gone)
	out, replayed, err := call(t.Context(), conn, "Charge", "x", "k")
	require.NoError(t, err)
	require.True(t, replayed)
	require.Equal(t, "charged", out)
}

// faulty is a store that fails.
type faulty struct {
	idempotency.Store
	claim, complete error
}

func (f faulty) Claim(ctx context.Context, q idempotency.ClaimRequest) (idempotency.Record, error) {
	if f.claim != nil {
		return idempotency.Record{}, f.claim
	}
	return f.Store.Claim(ctx, q)
}

func (f faulty) Complete(ctx context.Context, c idempotency.Claim, result []byte, keep time.Duration) error {
	if f.complete != nil {
		return f.complete
	}
	return f.Store.Complete(ctx, c, result, keep)
}

func TestFailuresOfTheStore(t *testing.T) {
	var calls atomic.Int32
	work := func(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		calls.Add(1)
		return wrapperspb.String("charged"), nil
	}
	policy := idempotency.Policy{Lease: 50 * time.Millisecond}
	down := serve(t, newGuard(faulty{memory(), errors.New("secret: refused"), nil}, policy), grpcidempotency.Config{}, work)
	_, _, err := call(t.Context(), down, "Charge", "x", "k")
	require.Positive(t, requireStatus(t, err, codes.Unavailable, "UNAVAILABLE"))
	require.NotContains(t, err.Error(), "secret")
	require.Zero(t, calls.Load(), "the handler never runs without a claim")

	unrecorded := serve(t, newGuard(faulty{memory(), nil, errors.New("down")}, policy), grpcidempotency.Config{}, work)
	out, _, err := call(t.Context(), unrecorded, "Charge", "x", "k")
	require.NoError(t, err, "it has happened")
	require.Equal(t, "charged", out)

	lost := serve(t, newGuard(faulty{memory(), nil, idempotency.ErrLost}, policy), grpcidempotency.Config{}, work)
	_, _, err = call(t.Context(), lost, "Charge", "x", "k")
	requireStatus(t, err, codes.Aborted, "IN_PROGRESS")
}

func TestResponsesThatAreNotThere(t *testing.T) {
	store := memory()
	conn := serve(t, newGuard(store, idempotency.Policy{MaxResult: 100}), grpcidempotency.Config{
		IssuedAt: func(_ context.Context, key string) time.Time { return idempotency.TimeOfUUID(key) },
	}, func(_ context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		return wrapperspb.String(strings.Repeat(in.Value, 200)), nil
	})
	out, _, err := call(t.Context(), conn, "Charge", "x", "k")
	require.NoError(t, err)
	require.Len(t, out, 200)
	_, _, err = call(t.Context(), conn, "Charge", "x", "k")
	requireStatus(t, err, codes.FailedPrecondition, "RESPONSE_NOT_KEPT")
	_, _, err = call(t.Context(), conn, "Charge", "x", "017F22E2-79B0-7CC3-98C4-DC0C0C07398F")
	requireStatus(t, err, codes.FailedPrecondition, "KEY_TOO_OLD")

	r, err := store.Claim(t.Context(), idempotency.ClaimRequest{Key: idempotency.Key{Scope: "grpc:", ID: "foreign"}, Lease: time.Hour, Keep: time.Hour})
	require.NoError(t, err)
	require.NoError(t, store.Complete(t.Context(), r.Claim, []byte("\x01\xff not a message"), time.Hour))
	_, _, err = call(t.Context(), conn, "Charge", "x", "foreign")
	requireStatus(t, err, codes.FailedPrecondition, "RESPONSE_NOT_KEPT")
}
