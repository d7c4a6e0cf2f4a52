// Package kafkabus is the broker behind "kafka:" and "kafkas:" URLs: Apache
// Kafka, and what speaks its protocol.
//
// It stands on franz-go, a client written in Go throughout. Watermill's own Kafka
// adapter can be used beside it on the same topics; see Wire format.
//
// # URL
//
//	kafka://host1:9092,host2:9092?partitions=12&replication=3&min_insync=2
//	kafkas://user:password@host:9093/?sasl=scram-sha-512&tls_ca=/etc/kafka/ca.pem
//
// The authority lists brokers to start from, the port defaults to 9092, and the
// user and password are for SASL. A host in brackets, such as [::1], can't be
// followed by others. kafkas: is kafka: with tls=true. The parameters, each
// described at the field of [Config] with nearly the same name:
//
//	tls, tls_ca, tls_cert, tls_key, tls_server_name    encryption, mutual TLS
//	sasl                        plain, scram-sha-256, scram-sha-512
//	client_id                   in the brokers' logs and quotas
//	provision                   false: create no topics (NoProvision)
//	partitions, replication, min_insync, retention     of topics it creates
//	max_payload                 largest event
//	partitioner                 murmur2 (as Java), sarama
//	compression                 none, gzip, snappy, lz4, zstd
//	linger, publish_timeout     publishing
//	session_timeout, revoke_timeout, commit_interval, buffer    consuming
//
// Open connects and fails within ten seconds with what is wrong.
//
// # Delivery
//
// At least once. Publish returns when all replicas in sync have the event
// (acks=all, min_insync says how many at least), by an idempotent producer, so
// the client's retries make no duplicates; only a producer that the brokers have
// forgotten, or a topic that was deleted, has events sent anew. The events of one call are sent together,
// and not together accepted: a *driver.BatchError names those that were not.
// While no broker can be reached, Publish waits until the context of the first
// message ends or publish_timeout is over. What it had not given to the client
// by then is not published later; what it had may arrive.
//
// Progress is committed every commit_interval, when a partition moves and when a
// member leaves. So a crash repeats what was handled within the last interval,
// and what was done out of turn behind an event that still ran; a consumer that
// is stopped by its context repeats only the latter. A member that loses the
// broker which coordinates its group lets the running handlers finish, joins
// again and goes on from the last commit.
//
// # Order
//
// Events of one key are in one partition, and of one partition a group's member
// handles each key one at a time in publish order, different keys side by side;
// also across retries in place, redeliveries that hold the key, rebalances and
// crashes. Events without a key have no order. There are three exceptions:
//
//   - A partition that moves waits for its running handlers no longer than
//     revoke_timeout. A handler that takes longer is fenced: its result does not
//     count, and the next owner handles the event, and its key, beside it.
//   - A member that was suspended, or cut off, for longer than session_timeout
//     loses its partitions while its handlers run.
//   - When partitions are added to a topic, keys move to other partitions, and
//     what is in the old ones is handled beside what follows.
//
// # Groups
//
// The group id in Kafka is the group's name. A group exists from its first
// Subscribe, which commits where it starts in each partition, the oldest event
// unless asked otherwise; Kafka forgets groups that had no member for
// offsets.retention.minutes, seven days by default. If the group has members of
// other topics already, Subscribe joins it for a moment to do that. Partitions
// that are added later are read from their start.
//
// Members share partitions by the cooperative-sticky protocol: only what moves
// is interrupted, a member that joins or leaves is noticed within about a second,
// and what a killed one had is taken over after session_timeout. More members
// than partitions do no harm, but some have nothing to do. Members on another
// protocol, such as Sarama's, can't be in the same group.
//
// [Broker.Seek] moves a group in time, while it has no members.
//
// # Redelivery
//
// Any nack delivers again from memory, after its delay. Kafka has no place for
// single events that wait, so until the event is done the committed position
// stays behind it: should the partition move meanwhile, the event comes at once,
// with a new count of attempts, and what followed it comes again as well.
// Publishing for later is not supported (Capabilities.Delay).
//
// # Limits
//
// Payloads up to 1 MiB by default. Metadata may hold any bytes but counts with
// the payload towards the topic's max.message.bytes; topics that are created
// here take max_payload and 64 KiB.
//
// A consumer works on buffer events at a time, evenly from all of its partitions
// that have any, and fetches about as many ahead, together no more than about 64
// MiB. When workers are idle all the same, because what is there waits for a few
// keys, the partitions that have most are paused, and others are fetched in their
// place. So a key that is held up holds up others of its own partition only after
// that partition's share of the buffer waits behind it, and those of other
// partitions when 64 MiB do.
//
// A topic should not be deleted while it has members: they go on when it is
// created again, but a commit on its way may then skip its first events.
//
// # Durability
//
// That of the topic: replication, min_insync, retention. Events are kept for the
// topic's retention, consumed or not; a group that lags behind it loses events.
//
// # What it creates
//
// Topics, on the first Publish or Subscribe, with partitions, replication,
// min.insync.replicas and retention.ms as configured and a max.message.bytes that
// fits max_payload; and the committed offsets of groups. Existing topics are left
// as they are. With provision=false a missing topic is an error that wraps
// driver.ErrNotProvisioned.
//
// # Wire format
//
// The value is the payload, each metadata entry a header of that name, the id
// the header _watermill_message_uuid, and the key (ce_partitionkey) the record's
// key. That is what Watermill's adapter reads and writes, and, as metadata has
// the names for it, a CloudEvent in Kafka's binary mode. Publishers with keys must
// agree on the partitioner.
//
// Any record can be read. One without the id header has an empty UUID, one
// without ce_partitionkey is ordered by the record's key. Records of transactions
// are read once those are committed.
package kafkabus
