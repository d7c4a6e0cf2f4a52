package eventbus

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/failure"
)

// verdict is what an error says. Its methods are user code, so they are called
// once, in judge, and nowhere else.
type verdict struct {
	text      string
	permanent bool
	rejected  bool          // by a policy, the handler's or one of its own
	after     time.Duration // asked for by RetryAfter
	asked     bool
	stack     []byte // of a panic
}

// judge asks err. An error that panics when asked, such as a nil pointer in an
// error interface, is a failure like another.
func judge(err error) (v verdict) {
	defer func() {
		if p := recover(); p != nil {
			v = verdict{text: fmt.Sprintf("the handler returned an error of type %T that can't be read: %v", err, p), stack: debug.Stack()}
		}
	}()
	v.text = err.Error()
	v.permanent = failure.Of(err) == failure.Permanent
	v.rejected = !v.permanent && failure.IsRejected(err)
	v.after, v.asked = failure.RetryAfter(err)
	var p *PanicError
	if errors.As(err, &p) {
		v.stack = p.Stack
	}
	return v
}

// Pauses between attempts to publish a dead letter.
const (
	firstBuryPause = time.Second
	lastBuryPause  = 30 * time.Second
)

// bury publishes a dead letter. While that fails the event stays where it is
// and its key waits: dropping it or overtaking it would both be worse, and so
// would be calling the handler again.
func (h *handler) bury(in *incoming, v verdict, log *slog.Logger) driver.Result {
	topic := h.service.cfg.deadLetters
	log = log.With("dead_letter_topic", topic)
	m := in.asArrived()
	markDead(m, Delivery{Topic: in.Topic, Group: h.group, Attempt: in.Attempt}, v)
	m.SetContext(h.hard)
	for pause := firstBuryPause; ; pause = min(2*pause, lastBuryPause) {
		err := h.service.bus.Publish(topic, m)
		if err == nil {
			log.Error("eventbus: event went to the dead-letter topic")
			return driver.Result{}
		}
		log.Error("eventbus: dead letter could not be published, the event is kept and that is tried again", "publish_error", err)
		if IsPermanent(err) {
			shorten(m)
		}
		if !h.pause(pause) {
			return giveBack
		}
	}
}

// shorten takes from a dead letter what its broker may have refused it for.
func shorten(m *message.Message) {
	delete(m.Metadata, MetadataDeadStack)
	m.Metadata[MetadataDeadCause] = truncate(m.Metadata[MetadataDeadCause], 128)
}
