// Package grpcidempotency has unary gRPC methods done once per idempotency key,
// on the guards and stores of package idempotency.
//
//	guard := idempotency.NewGuard(store, idempotency.Policy{Retention: 24 * time.Hour})
//	server := grpc.NewServer(grpc.ChainUnaryInterceptor(
//		authenticate,
//		grpcidempotency.UnaryServerInterceptor(guard, grpcidempotency.Config{Scope: account}),
//	))
//
// A client sends the key as metadata "idempotency-key", with the syntax of the
// HTTP header field of that name, and the same one when it repeats the call.
//
// # How it answers
//
//   - The first call runs the handler; its response is stored.
//   - A repetition gets that response, with header metadata
//     "idempotency-replayed: true".
//   - ABORTED, with RetryInfo: the first call is in progress. Try again.
//   - FAILED_PRECONDITION: the key was used for another request, is too old, or
//     its response was not kept. Trying again will not help.
//   - INVALID_ARGUMENT: the key is missing or malformed.
//   - UNAVAILABLE: the store failed; the handler did not run. Try again.
//
// Each of these has an ErrorInfo of domain "millrace.idempotency"
// whose reason tells them apart: IN_PROGRESS, KEY_REUSED, KEY_TOO_OLD,
// RESPONSE_NOT_KEPT, KEY_MISSING, KEY_INVALID,
// UNAVAILABLE.
//
// # What is not stored
//
// Errors of the handler are returned as they are and release the key: a
// repetition runs the handler again. What must not be tried again belongs into
// the response. Header and trailer metadata are not stored.
//
// Requests are compared by the SHA-256 of their method and their deterministic
// encoding. That is stable for one version of the message's definition; a
// repetition that meets a server in which the message has got new fields is the
// same request as long as it does not set them.
//
// # Clients that leave
//
// The handler goes on when the client cancels, or its deadline passes, so that
// the repetition finds a response. Its context ends when the claim is lost, or
// after Policy.MaxHold. idempotency.ClaimFrom gives it the fencing token.
package grpcidempotency
