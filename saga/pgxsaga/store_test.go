package pgxsaga_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/internal/storetest"
	"github.com/millrace-go/millrace/saga/pgxsaga"
	"github.com/millrace-go/millrace/saga/sagatest"
)

var modes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

func eachMode(t *testing.T, test func(t *testing.T, r rig)) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			test(t, newRig(t, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode }))
		})
	}
}

func TestConformance(t *testing.T) { eachMode(t, conforms) }

func TestConformanceInGroups(t *testing.T) {
	eachMode(t, func(t *testing.T, r rig) {
		pgxsaga.AlwaysInGroups(r.Store)
		conforms(t, r)
	})
}

func conforms(t *testing.T, r rig) {
	sagatest.RunStore(t, func(t *testing.T) sagatest.Opened {
		_, err := r.db.Exec("TRUNCATE millrace_saga, millrace_saga_history, millrace_saga_definitions, millrace_inbox, millrace_outbox, millrace_outbox_scheduled")
		require.NoError(t, err)
		return sagatest.Opened{Store: r, Messages: r.published}
	})
}

// notices counts the NOTIFYs of the outbox.
type notices struct{ n atomic.Int64 }

func (c *notices) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if q.SQL == "SELECT pg_notify($1, '')" {
		c.n.Add(1)
	}
	return ctx
}

func (*notices) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A transition is one round trip and one commit, whatever it writes and however it
// ends.
func TestCommitIsOneRoundTrip(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			notified := &notices{}
			r := newRig(t, func(c *pgxpool.Config) {
				c.ConnConfig.DefaultQueryExecMode, c.ConnConfig.Tracer, c.MaxConns = mode, notified, 1
			})
			warm := transition("warm", 0)
			prepare := func() {
				t.Helper()
				warm = transition("warm", warm.Instance.Revision+1)
				require.NoError(t, r.Commit(t.Context(), warm))
			}
			trips := func(c saga.Commit, want error) {
				t.Helper()
				before := notified.n.Load()
				n := r.turns.Of(func() { require.ErrorIs(t, r.Commit(t.Context(), c), want) })
				require.EqualValues(t, 1, n-(notified.n.Load()-before), "%v of revision %d", want, c.Instance.Revision)
			}
			prepare() // the first transition of an instance
			prepare() // and later ones
			for revision := range int64(3) {
				trips(transition("1", revision+1), nil)
			}
			without := transition("1", 4)
			without.EventID, without.Messages = "", nil
			trips(without, nil)
			again := transition("1", 1)
			again.EventID = ""
			for _, refused := range []struct {
				c    saga.Commit
				want error
			}{
				{transition("1", 4), saga.ErrConflict}, {transition("1", 9), saga.ErrConflict}, {transition("1", 2), saga.ErrDuplicate}, {again, saga.ErrConflict},
			} {
				trips(refused.c, refused.want)
				prepare() // pgx forgets the statements of a batch that fails
			}
			r.wantOneTransactionEach(t, 3)
			load := func() {
				_, err := r.Load(t.Context(), "s", "1")
				require.NoError(t, err)
			}
			load()
			require.EqualValues(t, 1, r.turns.Of(load))
		})
	}
}

// wantOneTransactionEach demands that all that a transition has written was
// written by one transaction.
func (r rig) wantOneTransactionEach(t *testing.T, transitions int) {
	t.Helper()
	for revision := 1; revision <= transitions; revision++ {
		event := fmt.Sprintf("e-1-%d", revision)
		var rows, transactions int
		require.NoError(t, r.db.QueryRow(`SELECT count(*), count(DISTINCT x) FROM (
			SELECT xmin::text AS x FROM millrace_inbox WHERE id = $1
			UNION ALL SELECT xmin::text FROM millrace_saga_history WHERE event_id = $1::text::bytea
			UNION ALL SELECT xmin::text FROM millrace_outbox WHERE id = ('stock.reserve-' || $1::text)::bytea
			UNION ALL SELECT xmin::text FROM millrace_outbox_scheduled WHERE id = ('saga.s.control-' || $1::text)::bytea) AS all_rows`, event).Scan(&rows, &transactions))
		require.Equal(t, 4, rows, event)
		require.Equal(t, 1, transactions, event)
	}
}

func TestCommitWakesTheRelay(t *testing.T) {
	r := newRig(t)
	open := func(to message.Publisher) storetest.Relay { return r.box.Relay(to, outbox.Poll(time.Minute)) }
	storetest.CommitWakesTheRelay(t, r, open, transition)
}

// At other levels of isolation the database gives transactions up that it would
// otherwise let wait.
func TestSerializableByDefault(t *testing.T) {
	r := newRig(t, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable" })
	const contenders, rounds = 6, 8
	for round := range rounds {
		var won atomic.Int64
		var wg sync.WaitGroup
		for n := range contenders {
			wg.Go(func() {
				c := transition("1", int64(round+1))
				c.EventID = fmt.Sprintf("e-%d-%d", round, n)
				switch err := r.Commit(t.Context(), c); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, saga.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
	}
	require.Len(t, r.published(t), 2*rounds)
}

func TestErrorsSayWhatToDo(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	c := transition("1", 1)
	c.Messages[0].Topic = "no topic"
	err := r.Commit(ctx, c)
	require.True(t, eventbus.IsPermanent(err), err)
	require.ErrorContains(t, err, "saga: commit in millrace_saga: outbox: ")
	_, err = r.Load(ctx, "s", "1")
	require.ErrorIs(t, err, saga.ErrNoInstance)

	box, inbox := pgxoutbox.New(nil), pgxinbox.New(nil)
	for want, s := range map[string]*pgxsaga.Store{
		"the database is nil": pgxsaga.NewStore(nil, box, inbox),
		"the outbox is nil":   pgxsaga.NewStore(r.pool, nil, inbox),
		"the inbox is nil":    pgxsaga.NewStore(r.pool, box, nil),
	} {
		require.ErrorContains(t, s.Commit(ctx, transition("1", 1)), "saga: NewSQLStore: "+want)
		require.NoError(t, s.Close())
	}
	s := pgxsaga.NewStore(r.pool, box, inbox)
	defer s.Close()
	require.ErrorContains(t, s.Commit(ctx, transition("1", 1)), "outbox: New: the database is nil")
	_, err = r.db.Exec("DROP TABLE millrace_saga")
	require.NoError(t, err)
	require.ErrorContains(t, r.Commit(ctx, transition("1", 1)), "call Migrate, or apply Schema")
	missing := transition("1", 1)
	missing.EventID = ""
	require.ErrorContains(t, r.Commit(ctx, missing), "call Migrate, or apply Schema")
}
