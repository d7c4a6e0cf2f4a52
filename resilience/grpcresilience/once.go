package grpcresilience

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/millrace-go/millrace/internal/hop"
	"github.com/millrace-go/millrace/resilience"
)

// once is the context of a call that must not be repeated. It lets attempts pass,
// one at a time, until one may have reached the server. When that has failed, the
// call looks like one that is a retry itself, which a Retry leaves alone without
// a pause and without a claim on its budget. A Retry that is Nested or has looked
// before, or a policy that goes on all the same, gets a refusedError.
type once struct {
	context.Context
	current atomic.Pointer[attempt]
	made    atomic.Int32
}

func (o *once) Value(key any) any {
	if key == (hop.Key{}) {
		if a := o.current.Load(); a != nil && a.failed.Load() != nil {
			return max(1, hop.Previous(o.Context))
		}
	}
	return o.Context.Value(key)
}

// attempt finds out whether gRPC had a connection for a call: gRPC fills in the
// peer if there was a stream on one, then calls OnFinish. If it does not,
// because an interceptor in between has not passed the options on, nothing is
// known.
type attempt struct {
	peer     peer.Peer
	finished atomic.Bool
	failed   atomic.Pointer[finalError]
}

// begin returns an attempt, or an error when there must be none.
func (o *once) begin() (*attempt, error) {
	a := &attempt{}
	for !o.current.CompareAndSwap(nil, a) {
		if other := o.current.Load(); other != nil {
			return nil, &refusedError{other}
		}
	}
	o.made.Add(1)
	return a, nil
}

// options returns opts with those that the attempt learns by.
func (a *attempt) options(opts []grpc.CallOption) []grpc.CallOption {
	return append(opts[:len(opts):len(opts)], grpc.Peer(&a.peer), grpc.OnFinish(func(error) { a.finished.Store(true) }))
}

func (a *attempt) unsent() bool { return a.finished.Load() && a.peer.Addr == nil }

// end takes the result of an attempt. If that may be repeated, another one can
// begin.
func (o *once) end(a *attempt, err error, repeatable bool) error {
	if err == nil {
		return nil
	}
	err = WithClass(err)
	if repeatable {
		o.current.Store(nil)
		return err
	}
	final := &finalError{err}
	a.failed.Store(final)
	return final
}

// outcome takes the result of the policy. A call that was not tried again has not
// come to the end of its retries, and attempts that were refused don't count.
func (o *once) outcome(err error) error {
	r, ok := err.(*resilience.RetryError) //nolint:errorlint // one further in is not the whole error
	if ok {
		err = r.Err
	}
	if refused, ok := err.(*refusedError); ok && refused.Unwrap() != nil { //nolint:errorlint // the same
		err = refused.Unwrap()
	}
	final, isFinal := err.(*finalError) //nolint:errorlint // the same
	switch {
	case isFinal && (!ok || o.made.Load() == 1):
		return final.error
	case isFinal:
		return &resilience.RetryError{Policy: r.Policy, Attempts: int(o.made.Load()), Reason: "the call may have reached the server", Err: final.error}
	case ok:
		return r
	}
	return err
}

// finalError is the result of an attempt that must not be repeated. Its class is
// that of the failure, since breakers have to count it.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// refusedError is the result of an attempt that was not made, after or beside
// another one.
type refusedError struct{ other *attempt }

func (e *refusedError) Error() string {
	if err := e.Unwrap(); err != nil {
		return err.Error()
	}
	return "grpcresilience: the call must not be made twice at a time"
}

func (e *refusedError) Unwrap() error {
	if failed := e.other.failed.Load(); failed != nil {
		return failed
	}
	return nil
}

// Class is Permanent once the other attempt has failed. While that is under way
// it is Transient, so that a Hedge goes on waiting for it.
func (e *refusedError) Class() resilience.Class {
	if e.other.failed.Load() != nil {
		return resilience.Permanent
	}
	return resilience.Transient
}

// Rejected returns true: breakers don't count it.
func (e *refusedError) Rejected() bool { return true }
