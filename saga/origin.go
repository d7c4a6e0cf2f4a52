package saga

import (
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
)

// origin names the service as the source of an orchestrator's messages. Nothing
// is published to it: a store does that, in the transaction of the transition.
type origin struct{ service string }

func (o *origin) Source() string { return o.service }

func (*origin) Publish(string, ...*message.Message) error {
	return errors.New("saga: messages are published by the store")
}

func (*origin) Close() error { return nil }
