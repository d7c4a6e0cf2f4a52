package saga

import (
	"context"
	"database/sql"
	"errors"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
)

// Participant makes handlers of a saga's commands that are safe against all that
// a network does to them: a command comes twice, a compensation overtakes its
// action, an action arrives after its compensation. It keeps what it needs to
// know in the participant's own database, in the transaction of the effects.
type Participant struct {
	inbox   *idempotency.Inbox
	barrier *idempotency.Barrier
}

// NewParticipant returns a participant on an inbox and a barrier in one database.
func NewParticipant(inbox *idempotency.Inbox, barrier *idempotency.Barrier) *Participant {
	return &Participant{inbox, barrier}
}

// HandleAction returns a handler of a command that does something. fn runs in a
// transaction, once for each step of each instance, and never after the step was
// compensated. It answers by publishing to the outbox in tx, with
// Answering(e.Metadata). If the answer is that nothing was done, fn also calls
// Refuse, or else the step counts as done: the saga may have given up waiting, and
// then it compensates what it knows nothing of.
//
// A step that is tried again sends a new command for what may be done already.
// again gives the answer once more then; it may be nil for a step without Retry
// that is not behind a pivot.
func HandleAction[C any](p *Participant, fn, again func(ctx context.Context, tx *sql.Tx, e eventbus.Event[C]) error) func(context.Context, eventbus.Event[C]) error {
	return idempotency.Once(p.inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[C]) error {
		verdict, err := p.verdict(ctx, tx, e.Metadata, (*idempotency.Barrier).Forward)
		switch {
		case err != nil:
			return err
		case verdict.Run():
			return fn(ctx, tx, e)
		case verdict == idempotency.Duplicate && again != nil:
			return again(ctx, tx, e)
		}
		return nil
	})
}

// HandleCompensation returns a handler of a command that undoes what the action of its
// step did. fn runs once, and only if the action did run.
//
// Where the saga waits for an answer (Step.Compensated), that has to come in any
// case: give it by otherwise, which runs when there is nothing to undo; it may be
// nil.
func HandleCompensation[C any](p *Participant, fn, otherwise func(ctx context.Context, tx *sql.Tx, e eventbus.Event[C]) error) func(context.Context, eventbus.Event[C]) error {
	return idempotency.Once(p.inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[C]) error {
		verdict, err := p.verdict(ctx, tx, e.Metadata, (*idempotency.Barrier).Compensate)
		switch {
		case err != nil:
			return err
		case verdict.Run():
			return fn(ctx, tx, e)
		case otherwise != nil:
			return otherwise(ctx, tx, e)
		}
		return nil
	})
}

// Refuse records in tx that the action of a command is not done and never will be,
// so that a compensation finds nothing to undo. command is the command's metadata.
// It is for fn of HandleAction, beside the answer that is the step's Failure.
func (p *Participant) Refuse(ctx context.Context, tx *sql.Tx, command map[string]string) error {
	_, err := p.verdict(ctx, tx, command, (*idempotency.Barrier).Compensate)
	return err
}

type barrierCall func(b *idempotency.Barrier, ctx context.Context, tx *sql.Tx, k idempotency.BarrierKey) (idempotency.Verdict, error)

func (p *Participant) verdict(ctx context.Context, tx *sql.Tx, metadata map[string]string, ask barrierCall) (v idempotency.Verdict, err error) {
	instance, step := metadata[MetadataInstance], metadata[MetadataStep]
	if instance == "" || step == "" {
		return v, eventbus.Permanent(errors.New("saga: the command does not say which step of which instance it is for; it was not sent by an orchestrator"))
	}
	return ask(p.barrier, ctx, tx, idempotency.BarrierKey{Saga: metadata[MetadataSaga] + "/" + instance, Step: step})
}

// Answering marks an event as the answer to a command, given the command's
// metadata, so that it goes to the saga and the step that have sent it, even in a
// loop, or beside others that wait for the same topic.
func Answering(command map[string]string) eventbus.PublishOption {
	return eventbus.WithAll(
		eventbus.WithMetadata(MetadataSaga, command[MetadataSaga]),
		eventbus.WithMetadata(MetadataStep, command[MetadataStep]),
	)
}
