package grpcresilience

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millrace-go/millrace/resilience"
)

// withStatus gives what a policy returned a status. pause is what RetryInfo asks
// for where a policy that turned the call away does not know; 0: nothing.
func withStatus(ctx context.Context, err error, pause time.Duration) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*callError); ok { //nolint:errorlint // one further in is not the whole error
		return e
	}
	s := statusOf(ctx, err)
	if resilience.IsRejected(err) {
		if after, ok := resilience.RetryAfter(err); ok && after > 0 {
			pause = after
		}
		s = withRetryInfo(s, pause)
	}
	return &callError{err, s, resilience.Classify(err)}
}

// statusOf finds the status of an error that policies have wrapped or made.
func statusOf(ctx context.Context, err error) *status.Status {
	var has interface{ GRPCStatus() *status.Status }
	switch {
	case resilience.Classify(err) == resilience.Cancelled:
		return status.New(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, resilience.ErrRateLimited):
		return status.New(codes.ResourceExhausted, err.Error())
	case resilience.IsRejected(err):
		return status.New(codes.Unavailable, err.Error())
	case errors.As(err, &has):
		return status.Convert(err)
	case ctx.Err() != nil:
		return status.New(status.FromContextError(ctx.Err()).Code(), err.Error())
	}
	return status.New(codes.Unknown, err.Error())
}

func withRetryInfo(s *status.Status, pause time.Duration) *status.Status {
	if pause <= 0 {
		return s
	}
	full, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(pause)})
	if err != nil {
		return s
	}
	return full
}
