package saga_test

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/saga"
)

// recorder keeps what is published.
type recorder struct {
	topics   []string
	messages []*message.Message
}

func (r *recorder) Publish(topic string, messages ...*message.Message) error {
	for _, m := range messages {
		r.topics, r.messages = append(r.topics, topic), append(r.messages, m)
	}
	return nil
}

func (*recorder) Close() error { return nil }

// accesses counts accesses to a store.
type accesses struct {
	saga.Store
	loads, commits, histories int
}

func (a *accesses) Load(ctx context.Context, name, id string) (saga.Instance, error) {
	a.loads++
	return a.Store.Load(ctx, name, id)
}

func (a *accesses) Commit(ctx context.Context, c saga.Commit) error {
	a.commits++
	return a.Store.Commit(ctx, c)
}

func (a *accesses) History(ctx context.Context, name, id string) ([]saga.Entry, error) {
	a.histories++
	return a.Store.History(ctx, name, id)
}

// A wake-up for an instance that has ended in the meantime costs one read, and
// leaves no mark.
func TestAWithdrawnWakeUpIsOneRead(t *testing.T) {
	published := &recorder{}
	d := sagaOf(saga.Step[trace]{Name: "wait", Success: saga.Signal[trace, int]("go", nil), Timeout: time.Minute})
	store := saga.NewMemoryStore(published)
	o, err := saga.NewOrchestrator(store, saga.Config{Logger: discard}, d)
	require.NoError(t, err)
	_, err = saga.Execute(t.Context(), o, d, "1", trace{})
	require.NoError(t, err)
	require.Len(t, published.messages, 1)
	require.NoError(t, o.Signal(t.Context(), "s", "1", "go", 1))

	counted := &accesses{Store: store}
	another, err := saga.NewOrchestrator(counted, saga.Config{Logger: discard}, d)
	require.NoError(t, err)
	for _, s := range another.Subscriptions("orders") {
		if s.Topic == published.topics[0] {
			require.NoError(t, s.Handle(published.messages[0]))
		}
	}
	require.Equal(t, []int{1, 0, 0}, []int{counted.loads, counted.commits, counted.histories})
}
