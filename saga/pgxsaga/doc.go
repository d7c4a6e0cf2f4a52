// Package pgxsaga keeps sagas in PostgreSQL by pgx, without database/sql. It is
// saga.SQLStore, on the same tables, and costs less: a transition is at most one
// round trip and one commit, with the mark of its event, its history and its
// messages.
//
//	box := pgxoutbox.New(pool)
//	inbox := pgxinbox.New(pool)
//	store := pgxsaga.NewStore(pool, box, inbox)
//	defer store.Close()
//	err := errors.Join(box.Migrate(ctx), inbox.Migrate(ctx), store.Migrate(ctx))
//	...
//	orchestrator, err := saga.NewOrchestrator(store, saga.Config{}, definitions...)
//	orchestrator.Attach(svc)
//	svc.Add(box.Relay(bus), inbox, store) // publishes; prunes marks and ended instances
//
// Beside the round trip there is, at most every 10 ms, the NOTIFY of pgxoutbox, if
// the relay that publishes runs in another process.
//
// # Groups
//
// What comes while a transition is being committed waits for that, and is
// committed together: one transaction and one round trip for up to 128
// transitions. Instances are read alike. Nothing is gathered when there is no
// load. If the database refuses a group nothing of it has happened, and each
// transition goes by itself, so each has the outcome that it would have had alone.
// A group waits 50 ms for locks, and nothing that hangs holds up others for
// longer.
//
// # PostgreSQL's log
//
// A transition can only fail as a whole if it fails within the database. So a
// conflict, when two processes have read the same revision of an instance, shows
// as an error "division by zero" in the log of the server, and a duplicate that
// is not remembered in memory as a "duplicate key value violates unique
// constraint" of the inbox; an instance that is locked when its group is
// committed shows as "canceling statement due to lock timeout". They are expected,
// and rare.
//
// # Poolers of connections
//
// The pool may use any QueryExecMode. With pgx's default each connection prepares
// its statements when it first executes them, and again after a conflict or a
// duplicate, which takes one or two round trips more then.
package pgxsaga
