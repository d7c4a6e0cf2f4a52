package grpcidempotency

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/millrace-go/millrace/idempotency"
)

// Metadata of the key and, in the header of a response, of a replay.
const (
	KeyMetadata      = "idempotency-key"
	ReplayedMetadata = "idempotency-replayed"
)

// Config configures UnaryServerInterceptor. The zero value is safe for a service
// whose clients trust each other; set Scope otherwise.
type Config struct {
	// Scope returns whose key it is: the account, tenant or principal that the call
	// was authenticated as, so that nobody gets the response to another's call by
	// guessing his key. Put the authentication's interceptor before this one.
	// Defaults to one scope for all.
	Scope func(ctx context.Context) string

	// Required says whether calls of a method without a key are refused with
	// INVALID_ARGUMENT. Defaults to none: they go to the handler unguarded.
	Required func(fullMethod string) bool

	// IssuedAt returns when the client made the key, or the zero time:
	// see idempotency.IssuedAt. By default nobody knows.
	IssuedAt func(ctx context.Context, key string) time.Time

	// Wait is how long a duplicate waits for the first one's response before it
	// gets ABORTED. Defaults to not at all.
	Wait time.Duration

	// MaxKey bounds the key in characters. Defaults to 255.
	MaxKey int
}

// UnaryServerInterceptor returns an interceptor that guards the calls which have
// a key. Responses must be protocol buffers that are linked into the server.
func UnaryServerInterceptor(g *idempotency.Guard, c Config) grpc.UnaryServerInterceptor {
	if c.MaxKey == 0 {
		c.MaxKey = 255
	}
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		key, err := keyOf(ctx, c.MaxKey)
		switch {
		case err != nil:
			return nil, keyInvalid(err)
		case key != "":
			return c.guard(ctx, g, key, request, info.FullMethod, handler)
		case c.Required != nil && c.Required(info.FullMethod):
			return nil, keyMissing()
		}
		return handler(ctx, request)
	}
}

// keyOf returns the key of a call, empty if it has none.
func keyOf(ctx context.Context, limit int) (string, error) {
	switch values := metadata.ValueFromIncomingContext(ctx, KeyMetadata); len(values) {
	case 0:
		return "", nil
	case 1:
		return idempotency.ParseKey(values[0], limit)
	default:
		return "", errors.New("there is more than one")
	}
}

func (c Config) guard(ctx context.Context, g *idempotency.Guard, key string, request any, method string, handler grpc.UnaryHandler) (any, error) {
	opts, err := c.options(ctx, key, request, method)
	if err != nil {
		return nil, err
	}
	k := idempotency.Key{Scope: "grpc:", ID: key}
	if c.Scope != nil {
		k.Scope += c.Scope(ctx)
	}
	var response any
	var own error // of the handler, to be told from the guard's
	stored, replayed, err := g.Do(ctx, k, func(ctx context.Context, _ idempotency.Claim) ([]byte, error) {
		if response, own = handler(ctx, request); own != nil {
			return nil, own
		}
		return pack(response)
	}, opts...)
	switch {
	case own != nil && !errors.Is(err, idempotency.ErrLost):
		return nil, own
	case err == nil && replayed:
		_ = grpc.SetHeader(ctx, metadata.Pairs(ReplayedMetadata, "true")) // it fails only if the client has gone
		return unpack(stored)
	case err == nil || errors.Is(err, idempotency.ErrUnrecorded):
		return response, nil
	}
	return nil, outcome(err)
}

func (c Config) options(ctx context.Context, key string, request any, method string) ([]idempotency.CallOption, error) {
	message, ok := request.(proto.Message)
	if !ok {
		return nil, internal(fmt.Errorf("the request is a %T, not a protocol buffer", request))
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil, internal(fmt.Errorf("encode the request: %w", err))
	}
	sum := sha256.Sum256(body)
	opts := []idempotency.CallOption{
		idempotency.Fingerprint(append(sum[:], method...)), idempotency.WaitAtMost(c.Wait), idempotency.Detached(),
	}
	if c.IssuedAt != nil {
		opts = append(opts, idempotency.IssuedAt(c.IssuedAt(ctx, key)))
	}
	return opts, nil
}

// pack encodes a response with its type. One that can't be encoded has
// happened all the same, so it is stored as empty, which unpack refuses.
func pack(response any) ([]byte, error) {
	message, ok := response.(proto.Message)
	if !ok {
		return nil, nil
	}
	wrapped, err := anypb.New(message)
	if err != nil {
		return nil, nil //nolint:nilerr // see above
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(wrapped)
}

func unpack(stored []byte) (proto.Message, error) {
	var wrapped anypb.Any
	if err := proto.Unmarshal(stored, &wrapped); err != nil {
		return nil, outcome(fmt.Errorf("%w: %w", idempotency.ErrNoResult, err))
	}
	message, err := wrapped.UnmarshalNew()
	if err != nil {
		return nil, outcome(fmt.Errorf("%w: %w", idempotency.ErrNoResult, err))
	}
	return message, nil
}
