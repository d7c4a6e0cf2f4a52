package grpcresilience

import (
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/internal/final"
)

// once sees to it that a call that must not be repeated isn't. It lets attempts
// pass, one at a time, until one may have reached the server. If that fails, its
// error tells a Retry to leave the call alone. A policy that goes on all the same
// gets a refusedError.
type once struct {
	current atomic.Pointer[attempt]
}

// attempt finds out whether gRPC had a connection for a call: gRPC fills in the
// peer if there was a stream on one, then calls OnFinish. If it does not,
// because an interceptor in between has not passed the options on, nothing is
// known.
type attempt struct {
	peer     peer.Peer
	finished atomic.Bool
	failed   atomic.Pointer[error]
}

// begin returns an attempt, or an error when there must be none.
func (o *once) begin() (*attempt, error) {
	a := &attempt{}
	for !o.current.CompareAndSwap(nil, a) {
		if other := o.current.Load(); other != nil {
			return nil, &refusedError{other}
		}
	}
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
	marked := final.Mark(err)
	a.failed.Store(&marked)
	return marked
}

// outcome takes the result of the policy.
func outcome(err error) error {
	if refused, ok := err.(*refusedError); ok && refused.Unwrap() != nil { //nolint:errorlint // what a policy made of it stays
		err = refused.Unwrap()
	}
	return final.Bare(err)
}

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
		return *failed
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
