// Package sqlbus is the broker behind "sqlite:", "postgres:" and "mysql:" URLs:
// durable events in a SQL database.
//
// In a SQLite file it needs no server and no C compiler (modernc.org/sqlite). Any
// number of processes of one machine may share the file. Use it for programs
// that run on one machine and must not lose events: tools, appliances, desktop
// programs, small services, and tests that restart things.
//
// On a PostgreSQL (12 or newer), MySQL (8) or MariaDB (10.6) server it needs
// nothing but tables. Use it where such a server is there anyway and a broker
// would be one more thing to run: up to some ten thousand events a second.
// It is tested with PostgreSQL 15 and MariaDB 10.11.
//
// # URL
//
//	sqlite:path/to/bus.db?retention=168h&lease=5s&poll=20ms&max_payload=1048576&provision=true
//	sqlite:/absolute/path/bus.db
//	sqlite:///absolute/path/bus.db
//	postgres://user:password@host:5432/database?sslmode=verify-full&sslrootcert=ca.pem&listen=true&connections=10
//	mysql://user:password@host:3306/database?tls=true&tls_ca=ca.pem&connections=10
//
// A relative path starts at the working directory; '?', '#' and '%' in a name
// are written %3F, %23 and %25. The scheme postgresql does as well. See [Config]
// for the parameters that the first line shows, which servers have too, and for
// connections; provision=false is NoProvision, listen=false is NoListen.
//
// PostgreSQL also takes sslmode (disable, prefer, require, verify-ca or
// verify-full; prefer is the default), sslrootcert, sslcert, sslkey,
// search_path, target_session_attrs and application_name, as libpq has them.
// MySQL takes tls (false, preferred, skip-verify or true; false is the default),
// and with it the files tls_ca, tls_cert and tls_key. Only verify-full and true
// make sure that it is the right server. Config.TLS replaces all of these.
//
// # Delivery
//
// At least once. Publish returns after the commit; the messages of one call are
// committed together or not at all. Publishers of a process that publish at the
// same time share a commit, on a server if they publish to the same topic. A
// crash repeats what was handled in the last 20 ms, 50 ms on a server, and what
// was done out of turn behind an event that still ran; a consumer that is
// stopped by its context, and partitions that move between members, repeat
// nothing.
//
// While a server is down or its connections break, Publish tries again until its
// context ends, and consumers wait. A commit of which the answer got lost is
// looked up afterwards, and if it did not happen it is made sure that it never
// will: so trying again writes nothing twice and breaks no order, unless the
// outage lasts for more than 24 hours: what is looked up is kept no longer. If the
// context ends before that, the error says that the event may have been published.
// A server that takes no writes, as during a switch-over, counts as down once the
// database is open.
//
// # Order
//
// Events of one key are handled one at a time in publish order, also across
// members, retries in place, redeliveries that hold the key, rebalances and
// crashes. Events without a key have no order. The one exception is a member
// that can't renew its lease (it was suspended, or the database can't be written
// to) while a handler runs: when the lease has ended, others take its keys over
// although that handler has not returned.
//
// Order of publishing is order of commit: a position in a topic is only taken
// under a lock that is held until the commit, so whoever reads by position skips
// nothing.
//
// # Groups
//
// A group exists from its first Subscribe until [Broker.RemoveGroup]. A new one
// starts with the oldest event kept; [Broker.Seek] moves it. Its events are
// spread over 32 partitions by the hash of their key, and its members share the
// partitions evenly, by leases with fencing tokens. A member that joins or leaves
// is noticed within half a second; a partition moves as soon as its running
// handlers have returned. What a killed member owned is taken over when its lease
// ends. More than 32 members of a group do no harm, but some have nothing to do.
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
// Payloads up to 1 MiB by default; keys, ids and metadata may hold any bytes. On
// MySQL, twice the payload must fit into the server's max_allowed_packet, and
// so must twice an event with its metadata.
//
// Consumers of other processes see an event after up to one poll; with
// PostgreSQL's LISTEN after some milliseconds. A pooler that hands connections
// out by transaction (PgBouncer) does not support LISTEN: set listen=false.
// Nothing else depends on a session, and no statements are prepared by name.
//
// SQLite has one writer at a time: two busy processes share the throughput of
// one, and a program that keeps a transaction of its own open on the file, or is
// suspended within one, makes Publish wait until its context ends. On a server
// the same holds for each topic, and publishers wait no longer for a process that
// hangs than the server takes to notice: 10 seconds with PostgreSQL and MariaDB,
// a minute with MySQL. Half of the connections, Config.Connections, are for what
// may wait for a topic's lock; it waits up to a second at a time and lets others
// have their turn in between. So many locked topics slow publishing to others
// down, but don't stop it.
//
// A consumer holds at most 1024 events, or four per worker, and about 64 MiB;
// one partition takes no more than half of the events. So a key that is held up
// holds up other keys only if they share its partition and more than 512 events
// wait for it, or if several such keys come together.
//
// Times in a file are those of the wall clock, which all processes share; on a
// server they are those of the server's clock, and the clocks of its clients don't
// matter, except that a due time is somebody's idea of the time. A clock set
// forward by more than a lease makes members lose their partitions. A file must
// be on a local disk: network file systems lack the locks and the shared memory
// that SQLite needs. If the disk is full or a file read-only, Publish returns an
// error that says so, and consumers wait and go on when it is mended.
//
// Consumers store their progress every 50 ms. While a transaction elsewhere in a
// PostgreSQL database stays open for hours, that leaves it old versions of rows
// which it can't clean up, and progress becomes slow to store, and events that
// are due slow to find.
//
// # Durability
//
// Full: in SQLite, WAL with synchronous=FULL. A server is as durable as it is set
// up to be; Open logs a warning if PostgreSQL's fsync or synchronous_commit is off
// or MySQL's innodb_flush_log_at_trx_commit is not 1. If a replica that lags behind
// becomes the primary, events that it lacks are lost. Positions follow the
// server's clock, so that consumers who had read those skip nothing that comes
// afterwards, provided that the clock of the replica is not behind by more than
// the failover took.
//
// Events are kept for the retention time, 168h by default, and longer until every
// existing group has consumed them; those of a topic without any group go after
// the retention time. A group that will not come back therefore keeps the
// database growing: remove it with [Broker.RemoveGroup]. Space that is freed is
// used again, but a file does not shrink; VACUUM it while nothing runs, if need
// be.
//
// # What it creates
//
// For SQLite the file, the directories above it (mode 0755), and while it is open
// <file>-wal and <file>-shm: copy all three, or use VACUUM INTO, for a backup.
// In the database these tables, which may live beside tables of others:
//
//	millrace_meta        version of the tables, number of partitions
//	millrace_events      the log
//	millrace_due         events published for later
//	millrace_groups      progress and owner of each partition of each group
//	millrace_members     members of groups and their leases
//	millrace_exceptions  events that are settled, or wanted again, out of turn
//	millrace_batches     the last commit of each publisher; on servers
//	millrace_topics      the last position of each topic; on MySQL
//
// and on PostgreSQL the sequence millrace_positions, which is not used any more.
// [Schema] returns the statements. With provision=false, opening creates nothing
// and refuses a database that is missing or lacks the tables; where it is the
// tables, or the file, the error is driver.ErrNotProvisioned. A user who may
// SELECT, INSERT, UPDATE and DELETE in the tables is enough then. Topics need no
// creation, so that a misspelt one is not noticed.
//
// Package watermillsql lets programs that use Watermill's own SQL adapter share
// topics with this one.
package sqlbus
