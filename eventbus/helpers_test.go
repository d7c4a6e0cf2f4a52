package eventbus_test

import (
	"log/slog"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
)

func readDeadLetter(to chan<- eventbus.DeadLetter) message.NoPublishHandlerFunc {
	return func(m *message.Message) error {
		d, err := eventbus.ReadDeadLetter(m)
		if err != nil {
			return err
		}
		to <- d
		return nil
	}
}

var discard = slog.New(slog.DiscardHandler)
