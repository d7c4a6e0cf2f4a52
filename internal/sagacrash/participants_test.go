package sagacrash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// The books are appended to without a look at what is in them, so that an effect
// that happens twice, or that is undone although it did not happen, shows.

var stockTables = []string{
	"CREATE TABLE shelves (sku TEXT PRIMARY KEY, quantity BIGINT NOT NULL)",
	"CREATE TABLE reserved (n BIGINT GENERATED ALWAYS AS IDENTITY, order_id TEXT NOT NULL, amount BIGINT NOT NULL)",
}

var salesTables = []string{
	"CREATE TABLE accounts (name TEXT PRIMARY KEY, cents BIGINT NOT NULL)",
	"CREATE TABLE charged (n BIGINT GENERATED ALWAYS AS IDENTITY, order_id TEXT NOT NULL, amount BIGINT NOT NULL)",
	"CREATE TABLE shipped (n BIGINT GENERATED ALWAYS AS IDENTITY, order_id TEXT NOT NULL, amount BIGINT NOT NULL)",
}

// ours is the account of the shop.
const ours = "shop"

// keepStock makes the process one of the stock service.
func (p process) keepStock() {
	part := p.participant()
	eventbus.Subscribe(p.svc, reserveStock, saga.HandleAction(part, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[Order]) error {
		took, err := execute(ctx, tx, "UPDATE shelves SET quantity = quantity - $1 WHERE sku = $2 AND quantity >= $1", e.Data.Quantity, e.Data.SKU)
		switch {
		case err != nil:
			return err
		case took == 0:
			return errors.Join(part.Refuse(ctx, tx, e.Metadata), p.answer(ctx, tx, stockShort, e))
		}
		if err := note(ctx, tx, "reserved", e.Data.ID, e.Data.Quantity); err != nil {
			return err
		}
		return p.answer(ctx, tx, stockReserved, e)
	}, p.says(stockReserved)))
	eventbus.Subscribe(p.svc, releaseStock, saga.HandleCompensation(part, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[Order]) error {
		if _, err := execute(ctx, tx, "UPDATE shelves SET quantity = quantity + $1 WHERE sku = $2", e.Data.Quantity, e.Data.SKU); err != nil {
			return err
		}
		if err := note(ctx, tx, "reserved", e.Data.ID, -e.Data.Quantity); err != nil {
			return err
		}
		return p.answer(ctx, tx, stockReleased, e)
	}, p.says(stockReleased)))
}

// sell makes the process one of the service that takes payments and ships.
func (p process) sell() {
	part := p.participant()
	eventbus.Subscribe(p.svc, takePayment, saga.HandleAction(part, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[Order]) error {
		if e.Data.Fate == declined {
			return errors.Join(part.Refuse(ctx, tx, e.Metadata), p.answer(ctx, tx, paymentDeclined, e))
		}
		if err := transfer(ctx, tx, e.Data, e.Data.Cents); err != nil {
			return err
		}
		switch e.Data.Fate {
		case slow:
			return p.answer(ctx, tx, paymentTaken, e, eventbus.WithDelay(slowAnswer))
		case late:
			return p.answer(ctx, tx, paymentTaken, e, eventbus.WithDelay(lateAnswer))
		}
		return p.answer(ctx, tx, paymentTaken, e)
	}, nil)) // who is slow is not hurried by a repetition
	eventbus.Subscribe(p.svc, refundPayment, saga.HandleCompensation(part, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[Order]) error {
		return transfer(ctx, tx, e.Data, -e.Data.Cents)
	}, nil))
	eventbus.Subscribe(p.svc, shipOrder, saga.HandleAction(part, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[Order]) error {
		if err := note(ctx, tx, "shipped", e.Data.ID, e.Data.Quantity); err != nil {
			return err
		}
		if err := p.answer(ctx, tx, orderShipped, e); err != nil {
			return err
		}
		if rand.N(4) == 0 {
			return errTransient
		}
		return nil
	}, p.says(orderShipped)))
}

// transfer moves money from the customer to the shop.
func transfer(ctx context.Context, tx *sql.Tx, o Order, cents int64) error {
	for _, part := range []struct {
		name  string
		cents int64
	}{{o.Customer, -cents}, {ours, cents}} {
		n, err := execute(ctx, tx, "UPDATE accounts SET cents = cents + $1 WHERE name = $2", part.cents, part.name)
		if err == nil && n != 1 {
			err = fmt.Errorf("account %s: %d rows", part.name, n)
		}
		if err != nil {
			return err
		}
	}
	return note(ctx, tx, "charged", o.ID, cents)
}

// note appends to a book.
func note(ctx context.Context, tx *sql.Tx, book, order string, amount int64) error {
	_, err := execute(ctx, tx, "INSERT INTO "+book+" (order_id, amount) VALUES ($1, $2)", order, amount)
	return err
}

func (p process) answer(ctx context.Context, tx *sql.Tx, topic eventbus.Topic[Answer], e eventbus.Event[Order], opts ...eventbus.PublishOption) error {
	return topic.Publish(ctx, p.box.In(tx), Answer{e.Data.ID}, append(opts, saga.Answering(e.Metadata))...)
}

// says is a handler that answers and does nothing else.
func (p process) says(topic eventbus.Topic[Answer]) func(ctx context.Context, tx *sql.Tx, e eventbus.Event[Order]) error {
	return func(ctx context.Context, tx *sql.Tx, e eventbus.Event[Order]) error {
		return p.answer(ctx, tx, topic, e)
	}
}

func execute(ctx context.Context, tx *sql.Tx, statement string, args ...any) (rows int64, err error) {
	res, err := tx.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
