// Package redisstore keeps the leases and results of package idempotency in
// Redis (5 or later), or in what speaks its protocol and runs Lua scripts, such
// as Valkey.
//
//	store := redisstore.New(redis.NewClient(&redis.Options{Addr: "localhost:6379"}), redisstore.Config{})
//	guard := idempotency.NewGuard(store, idempotency.Policy{})
//
// # What it promises
//
// It is an idempotency.Store. Each operation is one Lua script on one key, so it
// is atomic, and works on a cluster, too. Time is that of the Redis server.
// Records are deleted by Redis when their time is over; there is nothing to
// prune.
//
// # What remains possible
//
// Redis acknowledges a write before its replicas have it, and by default before
// it is on disk. After a failover or a crash a claim or a result of the last
// moments may be gone, and the operation is done again; its token is higher
// nevertheless. Use the SQL store where that is too much, or "appendfsync
// always" on a single server. Set maxmemory-policy to noeviction: a record that
// is evicted is an operation that is forgotten. A server whose clock jumps ends
// leases early or late.
//
// # Operation
//
// Open the client with ContextTimeoutEnabled, so that it heeds the deadlines of a
// guard; without it a call to a server that hangs takes the client's timeouts
// and retries. A holder is told of a lost claim in time either way.
//
// A record takes about 200 bytes and its result, under
// millrace:leases:<SHA-256 of scope and id, in hexadecimal>. Its fields: name,
// phase (1 claimed, 2 free, 3 done), token, attempt, fp, until (microseconds
// since 1970), keep (milliseconds), result.
package redisstore
