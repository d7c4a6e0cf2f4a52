package grpcresilience_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/grpcresilience"
)

// withRetryInfo is a status that asks for a pause.
func withRetryInfo(code codes.Code, after time.Duration) error {
	s, err := status.New(code, "later").WithDetails(&errdetails.ErrorInfo{Reason: "BUSY"}, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func TestClassOfCodes(t *testing.T) {
	for code, class := range map[codes.Code]resilience.Class{
		codes.Unavailable:        resilience.Transient,
		codes.Aborted:            resilience.Transient,
		codes.DeadlineExceeded:   resilience.Transient,
		codes.Internal:           resilience.Transient,
		codes.Unknown:            resilience.Transient,
		codes.Code(99):           resilience.Transient,
		codes.ResourceExhausted:  resilience.Throttled,
		codes.Canceled:           resilience.Cancelled,
		codes.InvalidArgument:    resilience.Permanent,
		codes.NotFound:           resilience.Permanent,
		codes.AlreadyExists:      resilience.Permanent,
		codes.PermissionDenied:   resilience.Permanent,
		codes.FailedPrecondition: resilience.Permanent,
		codes.OutOfRange:         resilience.Permanent,
		codes.Unimplemented:      resilience.Permanent,
		codes.Unauthenticated:    resilience.Permanent,
		codes.DataLoss:           resilience.Permanent,
	} {
		plain := status.Error(code, "text")
		err := grpcresilience.WithClass(plain)
		require.Equal(t, class, resilience.Classify(err), code)
		require.Equal(t, code, status.Code(err))
		require.Equal(t, code, status.Code(fmt.Errorf("get order: %w", err)))
		require.ErrorIs(t, err, plain)
		require.Equal(t, plain.Error(), err.Error())
		_, asked := resilience.RetryAfter(err)
		require.False(t, asked, code)
		require.Equal(t, err, grpcresilience.WithClass(err), "once is enough")
	}
}

func TestRetryInfoIsTheDelay(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.ResourceExhausted, codes.Aborted} {
		err := grpcresilience.WithClass(withRetryInfo(code, 3*time.Second))
		require.Equal(t, resilience.Throttled, resilience.Classify(err))
		after, _ := resilience.RetryAfter(err)
		require.Equal(t, 3*time.Second, after)
		require.Len(t, status.Convert(err).Details(), 2)
	}
	for _, err := range []error{withRetryInfo(codes.NotFound, time.Second), withRetryInfo(codes.Unavailable, -time.Second), withRetryInfo(codes.Unavailable, 0)} {
		_, asked := resilience.RetryAfter(grpcresilience.WithClass(err))
		require.False(t, asked, err)
	}
}

func TestOtherErrorsKeepTheirs(t *testing.T) {
	for _, err := range []error{nil, io.EOF, context.Canceled, errors.New("x"), resilience.AsPermanent(errors.New("x"))} {
		require.Equal(t, err, grpcresilience.WithClass(err))
	}
}
