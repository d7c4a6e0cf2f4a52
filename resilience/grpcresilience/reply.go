package grpcresilience

import (
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// answer is the storage of an attempt after the first, which has the caller's:
// attempts may run at a time, and gRPC writes into them.
type answer struct {
	reply any
	opts  []grpc.CallOption
	moves []func() // to the caller's storage
}

func newAnswer(reply any, t protoreflect.MessageType, opts []grpc.CallOption) *answer {
	a := &answer{reply: newLike(reply, t), opts: make([]grpc.CallOption, len(opts))}
	for i, o := range opts {
		a.opts[i] = a.own(o)
	}
	return a
}

// own replaces an option that says where to write to.
func (a *answer) own(o grpc.CallOption) grpc.CallOption {
	switch o := o.(type) {
	case grpc.HeaderCallOption:
		own := new(metadata.MD)
		a.moves = append(a.moves, func() { *o.HeaderAddr = *own })
		return grpc.Header(own)
	case grpc.TrailerCallOption:
		own := new(metadata.MD)
		a.moves = append(a.moves, func() { *o.TrailerAddr = *own })
		return grpc.Trailer(own)
	case grpc.PeerCallOption:
		own := new(peer.Peer)
		a.moves = append(a.moves, func() { *o.PeerAddr = *own })
		return grpc.Peer(own)
	}
	return o
}

// deliver moves the answer to the caller's storage. No attempt is running any
// more. A nil answer is there already.
func (a *answer) deliver(reply any, err error) {
	if a == nil {
		return
	}
	for _, move := range a.moves {
		move()
	}
	if err == nil {
		move(reply, a.reply)
	}
}

// typeOf returns the type of a message, to be asked before somebody writes to it.
func typeOf(reply any) protoreflect.MessageType {
	if m, ok := reply.(proto.Message); ok {
		return m.ProtoReflect().Type()
	}
	return nil
}

// newLike returns an empty message like v, into which somebody may be writing.
func newLike(v any, t protoreflect.MessageType) any {
	if t != nil {
		return t.New().Interface()
	}
	if t := reflect.TypeOf(v); t != nil && t.Kind() == reflect.Pointer {
		return reflect.New(t.Elem()).Interface()
	}
	return v
}

func move(to, from any) {
	if m, ok := to.(proto.Message); ok {
		proto.Reset(m)
		proto.Merge(m, from.(proto.Message))
		return
	}
	if v := reflect.ValueOf(to); v.Kind() == reflect.Pointer && !v.IsNil() {
		v.Elem().Set(reflect.ValueOf(from).Elem())
	}
}
