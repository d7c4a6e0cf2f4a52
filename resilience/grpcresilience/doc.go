// Package grpcresilience puts policies of package resilience around the calls of
// a gRPC client, and in front of the handlers of a gRPC server.
//
//	conn, err := grpc.NewClient(target,
//		grpc.WithUnaryInterceptor(grpcresilience.UnaryClientInterceptor(payments, grpcresilience.ClientConfig{
//			Idempotent: func(method string) bool { return strings.HasPrefix(path.Base(method), "Get") },
//		})),
//		grpc.WithStreamInterceptor(grpcresilience.StreamClientInterceptor(payments, grpcresilience.ClientConfig{})))
//
//	shed, err := grpcresilience.UnaryServerInterceptor(overload, grpcresilience.ServerConfig{})
//	server := grpc.NewServer(grpc.ChainUnaryInterceptor(authenticate, shed))
//
// # What a status means
//
//   - OK, and the end of a stream: a success.
//   - UNAVAILABLE, ABORTED, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN: Transient.
//     INTERNAL and UNKNOWN are what servers answer when they are broken, like
//     HTTP's 500, so that breakers have to count them.
//   - RESOURCE_EXHAUSTED, and a Transient one with RetryInfo: Throttled, until the
//     RetryInfo's delay. (gRPC also says RESOURCE_EXHAUSTED of messages that are
//     too large, which nobody can tell apart.)
//   - CANCELLED: Cancelled.
//   - INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED,
//     FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED and
//     DATA_LOSS: Permanent.
//
// WithClass gives errors that class where a policy is used without an
// interceptor.
//
// # What a caller gets
//
// Every error has a status, for status.FromError and status.Code, and policies'
// errors in its chain, for errors.Is and errors.As. The status is the server's
// where it answered. Otherwise it is DEADLINE_EXCEEDED for ErrTimeout,
// RESOURCE_EXHAUSTED for ErrRateLimited, and UNAVAILABLE for ErrOpen,
// ErrBulkheadFull and ErrOverloaded, with RetryInfo where the policy knows when
// to try again.
//
// # What is tried again
//
// gRPC does not say which methods are idempotent, and no status is proof that a
// call was not processed. So calls of methods that ClientConfig.Idempotent does
// not name are tried again only if gRPC had no connection to send them on,
// whatever the Retry says; and they are not hedged. Breakers, limiters and
// timeouts apply to all calls.
//
// An attempt after the first, or beside it, has a reply, header, trailer and peer
// of its own; the caller gets those of the one that counts. The functions of
// grpc.OnFinish are called at the end of each attempt. A Fallback that returns
// nil leaves the reply as it is.
//
// gRPC tries calls again by itself: those that a server has not seen
// (transparent retries), which is safe, and those that a retryPolicy of the
// service configuration names. Leave such a policy out, or give the Retry away:
// they multiply.
//
// # Streams
//
// To a client's policy a stream is one call, from its opening to its status. An
// open stream holds its place in a Bulkhead; a breaker counts how it ends. But
// only the opening can be tried again, until there is a stream to send messages
// on, and only the opening is bounded by a Timeout: a stream that lives for days
// may share a policy with unary calls. So Retry and Timeout see failures to
// connect, not those of the server's answer, which comes later; what bounds the
// whole stream is the deadline of the caller's context. SlowCall and
// AdaptiveLimiter measure whole streams, so give long ones a policy without them.
// Streams are not hedged.
//
// A stream costs a goroutine, which ends when gRPC ends the stream. As always,
// the caller must see to that: receive until there is an error, or cancel the
// context.
//
// # Servers
//
// On a server a policy surrounds the handler, of a stream as a whole. A call that
// it turns away gets the same status as above, with RetryInfo, and the handler's
// errors are classified like a server's answers. Bulkhead, AdaptiveLimiter and
// RateLimiter shed load; a Timeout bounds the handler's context.
//
// # Along a chain of services
//
// Deadlines travel by themselves. How often a call was tried before travels as
// metadata "grpc-previous-rpc-attempts", which is also what gRPC sends
// (https://github.com/grpc/proposal/blob/master/A6-client-retries.md): client
// interceptors send resilience.PreviousAttempts, server interceptors hand it on
// by WithPreviousAttempts, so that a Retry beneath does not multiply.
package grpcresilience
