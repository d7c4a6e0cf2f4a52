// Package amqpbus is the broker behind "amqp:" and "amqps:" URLs: RabbitMQ, by
// AMQP 0-9-1.
//
// It needs RabbitMQ 3.10 or later and no plugin.
//
// # URL
//
//	amqp://user:password@host:5672/vhost?queues=4&queue_type=quorum&prefetch=256
//	amqps://user:password@host1,host2:5671/vhost?tls_ca=ca.pem&tls_cert=me.pem&tls_key=me.key
//
// Without a path the virtual host is "/". Of several hosts, any that answers is
// used; a port at the end is that of all. See [Config] for the parameters
// queues, queue_type, prefetch, max_payload, retention, publish_timeout,
// revoke_timeout, heartbeat and connection_name; provision=false is NoProvision.
// With amqps: there are also tls_ca, tls_cert, tls_key, tls_server_name, and
// sasl: plain, the default, for a login by password, or external for one by
// certificate. A URL with a user has a password, too, except with the latter.
//
// # Delivery
//
// At least once. Publish returns after the broker has confirmed every event,
// for quorum queues by a majority of their nodes. The events of one call are on
// their way together. What is not confirmed when the connection is lost is
// published again, in order, before what came later, so a lost connection may
// repeat events; so may a crash of a consumer, which repeats what was settled in
// its last milliseconds. A consumer that is stopped by its context, and queues
// that move between members, repeat nothing.
//
// An event that no queue takes is returned by the broker, and then kept in the
// topic's queue of unclaimed events for the retention time, until the first
// group comes that starts with the oldest. Where other consumers have bound
// queues of their own to the topic's exchange, nothing is returned or kept.
//
// # Order
//
// Events of one key are handled one at a time in publish order, also across
// members, retries in place, redeliveries that hold the key, and lost
// connections. Events without a key have no order. The exceptions are:
//
//   - A handler that runs for longer than RevokeTimeout while its queue moves to
//     another member, or while its connection is lost.
//   - A lost connection when the broker gives the queue to a member of another
//     process before the handlers of the former have returned.
//   - Events published in the moment when a topic's first group is created, and
//     in which they may have been on their way to the unclaimed queue: such an
//     event can come after later ones of its key.
//   - An event that the broker refuses, of which Publish reports an error.
//
// # Groups
//
// A group exists from its first Subscribe until [Broker.RemoveGroup], and sees
// what is published from then on. The first group of a topic that starts with
// the oldest event is also given the unclaimed ones; later groups are not
// (Capabilities.Replay is false), and one that starts with the newest leaves
// them where they are.
//
// The events of a group are spread over a number of queues by the hash of their
// key, and its members share the queues evenly. So at most as many members as
// there are queues have work. A queue has a single active consumer: members that
// disagree for a moment about who reads it do no harm. A member that joins or
// leaves is noticed at once, and a queue moves as soon as its running handlers
// have returned. What a killed member read is taken over within six seconds; if
// its machine is gone, after the broker has noticed by two missing heartbeats. The
// number and type of queues are fixed when the group is created; members that are configured otherwise are refused.
//
// # Redelivery
//
// A nack delivers again from memory, after its delay, and counts attempts there:
// they start again at 1 when the queue moves to another member. An event that
// waits for its delay is not acknowledged, so it takes a place of its queue's
// prefetch: with as many delayed as that, the queue stands still until the first
// is due. RabbitMQ takes back what is not acknowledged within its
// consumer_timeout, 30 minutes by default, and delivers it again at once, so it
// comes earlier than asked for, with its attempts counted; raise the timeout for
// longer delays, and for handlers that run as long. A connection that is lost has
// the same effect. Publishing for later (driver.MetadataDue) is not supported.
//
// Positions of deliveries are a hash of the event's id.
//
// # Limits
//
// Payloads up to 1 MiB by default; RabbitMQ has a limit of its own, 16 MiB in
// version 4. Id and metadata up to 120,000 bytes together, names of metadata up
// to 246 bytes. Names of topics must not begin with "amq.". One Broker publishes
// to up to about 2000 topics a minute, and reads about 2000 queues. A topic whose
// queues don't confirm, for want of a majority, holds up no other topic; while
// the broker has blocked publishers, for want of memory or disk, Publish waits
// until its context or PublishTimeout ends, and consumers go on with what there
// is; members don't hear of each other then, so each stands by for every queue of
// its group, of which the broker serves one member.
//
// A Broker has up to three connections: one that publishes events, and with
// consumers one that reads and acknowledges and one by which members of groups
// hear of each other.
//
// # Durability
//
// Queues and exchanges are durable and events persistent. Quorum queues survive
// the loss of a minority of nodes. Events are kept until every group has
// acknowledged them: a group that will not come back keeps its queues growing,
// remove it with [Broker.RemoveGroup].
//
// # What it creates
//
// For a topic, a fanout exchange of its name, and if need be the queue
// <topic>:unclaimed. For a group of it:
//
//	<topic>:<group>             direct exchange, bound to the topic's
//	<topic>:<group>:0 and up    queues with a single active consumer
//	<topic>:<group>:4-quorum    fanout exchange for other routing keys, to queue 0
//	<topic>:<group>:members     fanout exchange by which members hear of each other
//	<topic>:<group>:oldest      exchange that marks groups that start with the oldest
//
// Where that would be longer than RabbitMQ's 255 bytes, a part is replaced by a
// hash. Each running consumer has an exclusive queue with a name by the broker
// (amq.gen-...), and creating a group takes the exclusive queue <topic>:lock for a
// moment, and <topic>:<group>:new if its queues are quorum queues. So does the
// queue of unclaimed events take <topic>:unclaimed:new.
//
// With provision=false nothing of that is created, except for the queues of
// running consumers: a client that may create calls [Broker.Provision] first.
// Without the permission for amq.gen-... members don't hear of each other; then
// the first to come does all the work.
//
// # Interoperability
//
// Publishers and subscribers of watermill-amqp with NewDurablePubSubConfig work
// on the same topics in both directions. Metadata are headers of the same name,
// the id is in _watermill_message_uuid and in the message-id property.
// CloudEvents attributes, the metadata that begin with ce_, are headers that begin
// with cloudEvents: as their AMQP binding has it (cloudEvents_ is read, too), and
// content-type is the property of that name. Names that mean something else as a
// header get the prefix millrace:. Headers that are numbers, booleans or times
// are read as text; tables, arrays and RabbitMQ's own headers are left out.
//
// Publishers in other languages publish to the topic's exchange, with the slot
// of the key as routing key if order matters: FNV-1a of its bytes, 32 bits,
// modulo 32, as two digits, "00" to "31". Slot s is in queue s modulo the number
// of queues. Events with any other routing key are in queue 0.
package amqpbus
