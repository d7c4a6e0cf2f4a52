package grpcresilience

import (
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-go/millrace/resilience"
)

// WithClass gives an error that has a gRPC status the class that policies go by,
// and the delay of its RetryInfo; see the package's documentation. Others, such
// as io.EOF and those that have a class, are returned as they are. The text and
// the chain of the error stay.
//
// The interceptors do that themselves. It is for clients without:
//
//	resilience.Get(ctx, policy, func(ctx context.Context) (*pb.Order, error) {
//		order, err := client.GetOrder(ctx, request)
//		return order, grpcresilience.WithClass(err)
//	})
func WithClass(err error) error {
	if err == nil {
		return nil
	}
	var classed interface{ Class() resilience.Class }
	if errors.As(err, &classed) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	class := classOf(s.Code())
	if class == resilience.Transient || class == resilience.Throttled {
		if after := retryDelay(s); after > 0 {
			class, err = resilience.Throttled, resilience.AsThrottled(err, after)
		}
	}
	return &callError{err, s, class}
}

// callError is an error with what gRPC and policies want to know about it.
type callError struct {
	error
	status *status.Status
	class  resilience.Class
}

func (e *callError) Unwrap() error              { return e.error }
func (e *callError) GRPCStatus() *status.Status { return e.status }
func (e *callError) Class() resilience.Class    { return e.class }

func classOf(c codes.Code) resilience.Class {
	switch c {
	case codes.ResourceExhausted:
		return resilience.Throttled
	case codes.Canceled:
		return resilience.Cancelled
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition,
		codes.OutOfRange, codes.Unimplemented, codes.Unauthenticated, codes.DataLoss:
		return resilience.Permanent
	}
	return resilience.Transient
}

// retryDelay returns the delay of the status's RetryInfo, or 0.
func retryDelay(s *status.Status) time.Duration {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return max(0, info.GetRetryDelay().AsDuration())
		}
	}
	return 0
}
