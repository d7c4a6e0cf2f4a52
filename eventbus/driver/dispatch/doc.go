// Package dispatch turns an ordered stream of records into concurrent work
// that keeps the order where it matters.
//
// In: records with keys and positions, added in order to a [Lane]. Out: one
// record at a time per key, different keys side by side, at most as many at
// once as there are workers, and per lane a watermark: the position up to
// which every record is done. Committing no more than the watermark makes a
// crash repeat records and never skip them.
//
//	d := dispatch.New[Record](dispatch.Config{Limit: 1024})
//	lane := d.Lane()
//	go read(func(r Record) { lane.Add(ctx, r.Key, r.Offset, 1, r) })
//	d.Work(ctx, 16, func(it *dispatch.Item[Record]) {
//		if !handle(it.Record) {
//			it.Retry(time.Second) // the key waits, other keys go on
//		}
//	})
//	commit(lane.Watermark())
//
// A lane is the unit that moves between processes: a Kafka partition, a hash
// range of a table. All lanes of a Dispatcher share its workers and its bound.
// [Lane.Revoke] withdraws a lane: what has not started is dropped, what runs is
// waited for.
//
// A worker whose handler is quick takes several records at a time. Those it has
// not come to are nobody's yet: a worker with nothing else to do takes them over,
// so that a slow record holds up only its key.
//
// Every log-like driver and the outbox relay stand on this package. The rules
// are checked against a small reference model with random operations in the
// package's tests.
package dispatch
