package driver_test

import (
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func TestCheckMessageRefusesWhatTheBrokerCannotTake(t *testing.T) {
	can := driver.Capabilities{MaxPayload: 3}
	later := message.NewMessage("later", nil)
	driver.SetDue(later, time.Now().Add(time.Hour))
	past := message.NewMessage("past", []byte("abc"))
	driver.SetDue(past, time.Now().Add(-time.Hour))
	bad := message.NewMessage("bad", nil)
	bad.Metadata[driver.MetadataDue] = "soon"

	require.NoError(t, driver.CheckMessage("t", past, can))
	require.ErrorIs(t, driver.CheckMessage("t", message.NewMessage("big", []byte("abcd")), can), driver.ErrTooLarge)
	err := driver.CheckMessage("t", later, can)
	require.EqualError(t, err, `topic "t": event later: publishing for later is not supported by this broker`)
	require.True(t, driver.IsPermanent(err))
	require.NoError(t, driver.CheckMessage("t", later, driver.Capabilities{Delay: true}))
	require.ErrorContains(t, driver.CheckMessage("t", bad, driver.Capabilities{Delay: true}), "is not an RFC 3339 time")
}

func TestCheckBatchReportsEventByEvent(t *testing.T) {
	refused := errors.New("refused")
	check := func(m *message.Message) error {
		if m.UUID == "bad" {
			return refused
		}
		return nil
	}
	good, bad := message.NewMessage("good", nil), message.NewMessage("bad", nil)
	require.NoError(t, driver.CheckBatch("t", []*message.Message{good, good}, check))
	require.Equal(t, refused, driver.CheckBatch("t", []*message.Message{bad}, check))
	var batch *driver.BatchError
	require.ErrorAs(t, driver.CheckBatch("t", []*message.Message{good, bad}, check), &batch)
	require.EqualError(t, batch.Errs[0], "event good was not published because another of its batch was refused")
	require.Equal(t, refused, batch.Errs[1])
}
