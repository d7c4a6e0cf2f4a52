package grpcresilience

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/internal/target"
)

// ClientConfig configures client interceptors. The zero value is safe.
type ClientConfig struct {
	// Idempotent says of which methods, such as "/shop.Orders/Get", a call may be
	// made again, or twice at a time, though it may have reached the server. It
	// must be safe for concurrent use. Defaults to none.
	Idempotent func(fullMethod string) bool
}

func (c ClientConfig) idempotent(method string) bool {
	return c.Idempotent != nil && c.Idempotent(method)
}

// UnaryClientInterceptor returns an interceptor that makes unary calls through
// policy, which must not be nil. It belongs outside of interceptors that are to
// see each attempt, such as those for tracing, and these must pass the call
// options on: if they don't, calls of methods that are not Idempotent are never
// tried again.
func UnaryClientInterceptor(policy resilience.Policy, cfg ClientConfig) grpc.UnaryClientInterceptor {
	resilience.Must(kindsOf(policy))
	return func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		c := &unaryCall{method: method, request: request, reply: reply, replyType: typeOf(reply), conn: conn, invoker: invoker, opts: opts}
		if cfg.idempotent(method) {
			c.repeatable.call = c
			err := target.Do(ctx, policy, &c.repeatable)
			c.repeatable.answer.deliver(reply, err)
			return withStatus(ctx, err, 0)
		}
		return withStatus(ctx, outcome(target.Do(ctx, policy, c)), 0)
	}
}

type unaryCall struct {
	method         string
	request, reply any
	replyType      protoreflect.MessageType // nil if it is no protocol buffer
	conn           *grpc.ClientConn
	invoker        grpc.UnaryInvoker
	opts           []grpc.CallOption

	repeatable repeatable
	taken      atomic.Bool // the caller's storage

	once once // if the call is not repeatable
}

// repeatable is a call of an idempotent method as what the policy calls, and the
// answer to the attempt that counts.
type repeatable struct {
	call   *unaryCall
	answer *answer
}

// Run is of target.Target.
func (r *repeatable) Run(ctx context.Context) (err error) {
	r.answer, err = r.call.attempt(ctx)
	return err
}

// Fork is of target.Target.
func (r *repeatable) Fork() target.Target { return &repeatable{call: r.call} }

// Join is of target.Target.
func (r *repeatable) Join(fork target.Target) { r.answer = fork.(*repeatable).answer }

func (c *unaryCall) attempt(ctx context.Context) (*answer, error) {
	if c.taken.CompareAndSwap(false, true) {
		return nil, WithClass(c.invoker(outgoing(ctx), c.method, c.request, c.reply, c.conn, c.opts...))
	}
	a := newAnswer(c.reply, c.replyType, c.opts)
	return a, WithClass(c.invoker(outgoing(ctx), c.method, c.request, a.reply, c.conn, a.opts...))
}

// Run makes an attempt of a call that must not be repeated. It always has the
// caller's storage: attempts are not made at a time, and those that another may
// follow got no answer.
func (c *unaryCall) Run(ctx context.Context) error {
	a, err := c.once.begin()
	if err != nil {
		return err
	}
	err = c.invoker(outgoing(ctx), c.method, c.request, c.reply, c.conn, a.options(c.opts)...)
	return c.once.end(a, err, a.unsent())
}

// Fork is of target.Target: attempts beside each other are refused.
func (c *unaryCall) Fork() target.Target { return c }

// Join is of target.Target.
func (c *unaryCall) Join(target.Target) {}
