// Package sqlbus is the broker behind "sqlite:" URLs: durable events in one
// SQLite file, without a server.
//
// Any number of processes of one machine may publish to the file and consume
// from it at a time. Use it for programs that run on one machine and must not
// lose events: tools, appliances, desktop programs, small services, and tests
// that restart things. It is written in Go throughout (modernc.org/sqlite), so
// it needs no C compiler.
//
// # URL
//
//	sqlite:path/to/bus.db?retention=168h&lease=5s&poll=20ms&max_payload=1048576&provision=true
//	sqlite:/absolute/path/bus.db
//	sqlite:///absolute/path/bus.db
//
// A relative path starts at the working directory; '?', '#' and '%' in a name
// are written %3F, %23 and %25. See [Config] for the parameters; provision=false
// is NoProvision.
//
// # Delivery
//
// At least once. Publish returns after the commit was synced to the disk; the
// messages of one call are committed together or not at all. Publishers that
// publish at the same time share a commit. A crash repeats what was handled in
// the last 20 ms and what was done out of turn behind an event that still ran;
// a consumer that is stopped by its context, and partitions that move between
// members, repeat nothing.
//
// # Order
//
// Events of one key are handled one at a time in publish order, also across
// members, retries in place, redeliveries that hold the key, rebalances and
// crashes. Events without a key have no order. The one exception is a member
// that can't renew its lease (it was suspended, or the file can't be written
// to) while a handler runs: when the lease has ended, others take its keys over
// although that handler has not returned.
//
// # Groups
//
// A group exists from its first Subscribe until [Broker.RemoveGroup]. A new one
// starts with the oldest event kept. Its events are spread over 32 partitions
// by the hash of their key, and its members share the partitions evenly, by
// leases with fencing tokens. A member that joins or leaves is noticed within
// half a second; a partition moves as soon as its running handlers have
// returned. What a killed member owned is taken over when its lease ends. More
// than 32 members of a group do no harm, but some have nothing to do.
//
// # Redelivery
//
// A nack without delay, or one that holds the key, delivers again from memory.
// A nack with a delay is stored first, so it survives a restart together with
// its count of attempts; counts of the other kind are forgotten when the
// partition moves. Events published for later (driver.MetadataDue) wait in a
// table of their own and join the log when they are due.
//
// # Limits
//
// Payloads up to 1 MiB by default; keys, ids and metadata may hold any bytes.
// Consumers of other processes see an event after up to one poll. SQLite has
// one writer at a time: two busy processes share the throughput of one, and a
// program that keeps a transaction of its own open on the file, or is suspended
// within one, makes Publish wait until its context ends.
//
// A consumer holds at most 1024 events, or four per worker, and about 64 MiB;
// one partition takes no more than half of the events. So a key that is held up
// holds up other keys only if they share its partition and more than 512 events
// wait for it, or if several such keys come together.
//
// Times in the file are those of the wall clock, which all processes share. A
// clock set forward by more than a lease makes members lose their partitions.
// The file must be on a local disk: network file systems lack the locks and the
// shared memory that SQLite needs. If the disk is full or the file read-only,
// Publish returns an error that says so, and consumers wait and go on when it
// is mended.
//
// # Durability
//
// Full: WAL with synchronous=FULL. Events are kept for the retention time, 168h
// by default, and longer until every existing group has consumed them; those of
// a topic without any group go after the retention time. A group that will not
// come back therefore keeps the file growing: remove it with
// [Broker.RemoveGroup]. Space that is freed is used again, but the file does not
// shrink; VACUUM it while nothing runs, if need be.
//
// # What it creates
//
// The file, the directories above it (mode 0755), and while it is open
// <file>-wal and <file>-shm: copy all three, or use VACUUM INTO, for a backup.
// In the file six tables, which may live beside tables of others:
//
//	millrace_meta        version of the tables, number of partitions
//	millrace_events      the log
//	millrace_due         events published for later
//	millrace_groups      progress and owner of each partition of each group
//	millrace_members     members of groups and their leases
//	millrace_exceptions  events that are settled, or wanted again, out of turn
//
// With provision=false, Open creates nothing and refuses a file that is missing
// or lacks the tables.
package sqlbus
