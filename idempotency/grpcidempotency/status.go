package grpcidempotency

import (
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millrace-go/millrace/idempotency"
)

const domain = "millrace.idempotency"

// longestRetry bounds what RetryInfo asks for: most calls end long before a lease
// does.
const longestRetry = 5 * time.Second

// refusal is a status with its reason, and a delay if trying again makes sense.
func refusal(code codes.Code, reason, text string, after time.Duration) error {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: domain}}
	if after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(min(after, longestRetry))})
	}
	s := status.New(code, "idempotency: "+text)
	if full, err := s.WithDetails(details...); err == nil {
		s = full
	}
	return s.Err()
}

func keyInvalid(err error) error {
	return refusal(codes.InvalidArgument, "KEY_INVALID", "metadata "+KeyMetadata+": "+err.Error(), 0)
}

func keyMissing() error {
	return refusal(codes.InvalidArgument, "KEY_MISSING", "this method requires metadata "+KeyMetadata, 0)
}

func internal(err error) error { return status.Error(codes.Internal, "idempotency: "+err.Error()) }

// outcome says what an error of the guard means to the client. Errors of the
// store are not for its eyes.
func outcome(err error) error {
	var busy *idempotency.InProgressError
	switch {
	case errors.As(err, &busy):
		return refusal(codes.Aborted, "IN_PROGRESS", "a call with this key is in progress; try again later", busy.After)
	case errors.Is(err, idempotency.ErrLost):
		return refusal(codes.Aborted, "IN_PROGRESS", "another try has taken the call over; try again later", time.Second)
	case errors.Is(err, idempotency.ErrMismatch):
		return refusal(codes.FailedPrecondition, "KEY_REUSED", "the key was used for another request", 0)
	case errors.Is(err, idempotency.ErrTooOld):
		return refusal(codes.FailedPrecondition, "KEY_TOO_OLD", "the key is too old; whether the call was done is not known any more", 0)
	case errors.Is(err, idempotency.ErrNoResult):
		return refusal(codes.FailedPrecondition, "RESPONSE_NOT_KEPT", "the call was done, but its response could not be kept", 0)
	}
	return refusal(codes.Unavailable, "UNAVAILABLE", "repetitions can't be recognised at the moment; the call was not done", time.Second)
}
