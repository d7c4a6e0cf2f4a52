package driver

import (
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// CheckMessage refuses a message that a broker with these capabilities can't take:
// its payload is over MaxPayload, its due time is no time, or it is due later
// and there is no Delay. Such errors are permanent.
func CheckMessage(topic string, m *message.Message, c Capabilities) error {
	if size := len(m.Payload); c.MaxPayload > 0 && size > c.MaxPayload {
		return TooLarge(topic, m.UUID, size, c.MaxPayload)
	}
	due, err := Due(m)
	if err == nil && !c.Delay && !due.IsZero() && due.After(time.Now()) {
		err = Permanent(fmt.Errorf("topic %q: event %s: publishing for later is %w", topic, m.UUID, ErrUnsupported))
	}
	return err
}

// CheckBatch is for drivers that refuse a batch of which any message can't be
// taken, before any is: it calls check for each. The error is that of check for a
// single message, and a *BatchError otherwise.
func CheckBatch(topic string, messages []*message.Message, check func(*message.Message) error) error {
	var errs []error
	for i, m := range messages {
		if err := check(m); err != nil {
			if errs == nil {
				errs = make([]error, len(messages))
			}
			errs[i] = err
		}
	}
	if errs == nil {
		return nil
	}
	if len(messages) == 1 {
		return errs[0]
	}
	for i := range errs {
		if errs[i] == nil {
			errs[i] = fmt.Errorf("event %s was not published because another of its batch was refused", messages[i].UUID)
		}
	}
	return &BatchError{Topic: topic, Errs: errs}
}
