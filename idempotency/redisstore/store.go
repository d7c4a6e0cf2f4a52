package redisstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace-go/millrace/idempotency"
)

// Store is an idempotency.Store in Redis. It is safe for concurrent use. The
// client stays its opener's, who closes it.
type Store struct {
	client redis.UniversalClient
	prefix string
	err    error // what was wrong with the arguments of New
}

// Config configures a Store.
type Config struct {
	// Prefix of the names of keys. Defaults to "millrace:leases:".
	Prefix string
}

var _ idempotency.Store = (*Store)(nil)

// New returns the store behind client. It does not connect. A nil client is an
// error of every use.
func New(client redis.UniversalClient, c Config) *Store {
	s := &Store{client: client, prefix: c.Prefix}
	if s.prefix == "" {
		s.prefix = "millrace:leases:"
	}
	if client == nil {
		s.err = errors.New("redisstore: New: the client is nil")
	}
	return s
}

func (s *Store) name(k idempotency.Key) []string {
	hash := k.Hash()
	return []string{s.prefix + hex.EncodeToString(hash[:])}
}

// Claim is the method of idempotency.Store.
func (s *Store) Claim(ctx context.Context, q idempotency.ClaimRequest) (idempotency.Record, error) {
	var none idempotency.Record
	if s.err != nil {
		return none, s.err
	}
	if err := q.Check(); err != nil {
		return none, err
	}
	existing := 0
	if q.Existing {
		existing = 1
	}
	reply, err := claim.Run(ctx, s.client, s.name(q.Key),
		q.Lease.Microseconds(), millis(q.Lease), millis(q.Keep), q.Fingerprint, existing, q.Key.String()).StringSlice()
	if err != nil {
		return none, failed("claim", q.Key, err)
	}
	return answer(q.Key, reply)
}

// answer reads the reply of the script: the state and what belongs to it.
func answer(k idempotency.Key, reply []string) (r idempotency.Record, err error) {
	if len(reply) != 3 {
		return r, fmt.Errorf("redisstore: claim %s: the script replied %d values, want 3", k, len(reply))
	}
	switch reply[0] {
	case "absent":
		r.State = idempotency.StateAbsent
	case "mismatch":
		r.State = idempotency.StateMismatch
	case "done":
		r.State, r.Result = idempotency.StateDone, []byte(reply[1])
	case "held":
		var us int64
		us, err = strconv.ParseInt(reply[1], 10, 64)
		r.State, r.Remaining = idempotency.StateHeld, time.Duration(us)*time.Microsecond
	case "claimed":
		r.State, r.Claim.Key = idempotency.StateClaimed, k
		if r.Claim.Token, err = strconv.ParseInt(reply[1], 10, 64); err == nil {
			r.Claim.Attempt, err = strconv.Atoi(reply[2])
		}
	default:
		err = fmt.Errorf("state %q", reply[0])
	}
	if err != nil {
		return idempotency.Record{}, fmt.Errorf("redisstore: claim %s: the script's reply: %w", k, err)
	}
	return r, nil
}

// Renew is the method of idempotency.Store.
func (s *Store) Renew(ctx context.Context, c idempotency.Claim, lease time.Duration) error {
	return s.change(ctx, "renew", renew, c, lease.Microseconds(), millis(lease))
}

// Complete is the method of idempotency.Store.
func (s *Store) Complete(ctx context.Context, c idempotency.Claim, result []byte, keep time.Duration) error {
	return s.change(ctx, "complete", complete, c, result, millis(keep))
}

// Release is the method of idempotency.Store.
func (s *Store) Release(ctx context.Context, c idempotency.Claim) error {
	return s.change(ctx, "release", release, c)
}

func (s *Store) change(ctx context.Context, operation string, script *redis.Script, c idempotency.Claim, args ...any) error {
	if s.err != nil {
		return s.err
	}
	held, err := script.Run(ctx, s.client, s.name(c.Key), append([]any{c.Token}, args...)...).Bool()
	switch {
	case err != nil:
		return failed(operation, c.Key, err)
	case !held:
		return fmt.Errorf("redisstore: %s %s: %w", operation, c.Key, idempotency.ErrLost)
	}
	return nil
}

func failed(operation string, k idempotency.Key, err error) error {
	return fmt.Errorf("redisstore: %s %s: %w", operation, k, err)
}

// millis rounds up, so that nothing is deleted early.
func millis(d time.Duration) int64 {
	return (d + time.Millisecond - 1).Milliseconds()
}
