package kafkabus

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func TestCallReportsEachEvent(t *testing.T) {
	messages := []*message.Message{message.NewMessage("1", nil), message.NewMessage("2", nil), message.NewMessage("3", nil), message.NewMessage("4", nil)}
	c := newCall(context.Background(), "t", messages)
	for i := range 3 { // the fourth was not sent yet
		c.records[i].Context = &c.slots[i]
		c.slots[i].state.Store(sent)
	}
	c.pending.Store(3)
	refused, late := errors.New("refused"), errors.New("late")
	settled(&c.records[0], nil)
	settled(&c.records[1], refused)
	require.Empty(t, c.finished)

	given := c.abandon(late)
	require.NoError(t, given[0])
	require.Equal(t, late, given[1])
	require.ErrorIs(t, given[2], errUnknown)
	require.ErrorIs(t, given[2], late)
	require.Equal(t, late, given[3])

	settled(&c.records[2], nil)
	<-c.finished
	require.Equal(t, []error{nil, refused, nil, nil}, c.failures())
}

// Metadata that is longer than expected has the buffer grow below what was kept.
func TestCallKeepsEverything(t *testing.T) {
	var messages []*message.Message
	for _, letter := range []string{"a", "b", "c", "d", "e"} {
		m := message.NewMessage("id-"+letter, []byte("payload "+letter))
		m.Metadata["long"] = strings.Repeat(letter, 20*metadataGuess)
		m.Metadata[driver.MetadataKey] = "key-" + letter
		messages = append(messages, m)
	}
	delete(messages[3].Metadata, driver.MetadataKey)
	for range 2 { // with new memory and with what was used before
		c := newCall(context.Background(), "t", messages)
		for i, m := range messages {
			r := &c.records[i]
			require.Equal(t, "t", r.Topic)
			values, key := readOne(r)
			id, metadata := decode(r, values)
			require.Equal(t, m.UUID, id)
			require.Equal(t, m.Metadata, metadata)
			require.Equal(t, driver.Key(m), key)
			require.Equal(t, driver.Key(m), string(r.Key))
			require.EqualValues(t, m.Payload, r.Value)
		}
		require.Nil(t, c.records[3].Key)
		c.release()
	}
}
