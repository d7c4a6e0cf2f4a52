package main

import (
	"errors"
	"math/rand/v2"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// What one would write by hand: one row a saga, with a version that each
// transition checks, and an outbox. It has no history, no recovery of sagas whose
// process has died, no timers and no marks of events.
const (
	handSchema = `
CREATE TABLE floor (id int PRIMARY KEY, step int NOT NULL, version int NOT NULL, data bytea NOT NULL) WITH (fillfactor = 50);
CREATE TABLE hand (id uuid PRIMARY KEY, name text NOT NULL, step int NOT NULL, version int NOT NULL, data bytea NOT NULL, updated_at timestamptz NOT NULL DEFAULT now()) WITH (fillfactor = 70);
CREATE TABLE hand_outbox (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, saga uuid NOT NULL, topic text NOT NULL, payload bytea NOT NULL)`

	updateFloor = `UPDATE floor SET step = $2, version = version + 1 WHERE id = $1`
	insertHand  = `INSERT INTO hand (id, name, step, version, data) VALUES ($1, 'order', $2, 0, $3)`
	updateHand  = `UPDATE hand SET step = $2, version = version + 1, data = $3, updated_at = now() WHERE id = $1 AND version = $4`
	insertEvent = `INSERT INTO hand_outbox (saga, topic, payload) VALUES ($1, 'commands', $2)`

	// document is as long as the state of ours.
	document = `{"order":"4711","amount":100,"lines":[{"sku":"A-100","count":2},{"sku":"B-200","count":1}],"address":"1 Long Lane, Cambridge","receipt":"","shipment":""}`

	rowsEach = 100 // of each worker, in the table of the floor
)

var errConflict = errors.New("another one has changed the row")

// act stands for what a participant does.
func act(int) {}

// floor is what four commits cost at the least.
func (b *bench) floor(worker int) error {
	id := worker*rowsEach + rand.IntN(rowsEach) + 1
	for step := range 4 {
		if _, err := b.pool.Exec(b.ctx, updateFloor, id, step); err != nil {
			return err
		}
	}
	return nil
}

// plain has a transaction for the start and for each step, of four round trips.
func (b *bench) plain(int) error {
	id := newID()
	for step := range 4 {
		act(step)
		err := pgx.BeginFunc(b.ctx, b.pool, func(tx pgx.Tx) error {
			if step == 0 {
				if _, err := tx.Exec(b.ctx, insertHand, id, step, []byte(document)); err != nil {
					return err
				}
			} else if done, err := tx.Exec(b.ctx, updateHand, id, step, []byte(document), step-1); err != nil || done.RowsAffected() == 0 {
				return errors.Join(err, errConflict)
			}
			_, err := tx.Exec(b.ctx, insertEvent, id, []byte(document))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pipelined has a round trip for the start and for each step.
func (b *bench) pipelined(int) error { return b.pipeline(4) }

// merged is pipelined, with the start and the first step in one transaction.
func (b *bench) merged(int) error { return b.pipeline(3) }

func (b *bench) pipeline(transitions int) error {
	id := newID()
	for n := range transitions {
		act(n)
		var request pgx.Batch // of one implicit transaction
		conflict := false
		if n == 0 {
			request.Queue(insertHand, id, n, []byte(document))
		} else {
			request.Queue(updateHand, id, n, []byte(document), n-1)
		}
		request.Queue(insertEvent, id, []byte(document))
		answer := b.pool.SendBatch(b.ctx, &request)
		if done, err := answer.Exec(); err == nil {
			conflict = done.RowsAffected() == 0
		}
		if err := answer.Close(); err != nil {
			return err
		}
		if conflict {
			return errConflict
		}
	}
	return nil
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }
