package outbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
	"github.com/millrace-go/millrace/internal/failure"
)

type item = dispatch.Item[*row]

// deliver publishes rows of different keys, those of one topic together. Rows
// that were in a batch which failed as a whole go one by one.
func (t *term) deliver(items []*item) {
	var space [8]string
	topics := space[:0]
	items = t.detour.claim(items)
	for i, it := range items {
		r := it.Record
		switch {
		case t.parkBehind(it):
			items[i] = nil
		case r.tries.alone:
			t.attempt(r.topic, items[i:i+1])
			items[i] = nil
		case !contains(topics, r.topic):
			topics = append(topics, r.topic)
		}
	}
	group := make([]*item, 0, len(items))
	for _, topic := range topics {
		group = group[:0]
		for _, it := range items {
			if it != nil && it.Record.topic == topic {
				group = append(group, it)
			}
		}
		t.attempt(topic, group)
	}
}

func contains(topics []string, topic string) bool {
	for _, s := range topics {
		if s == topic {
			return true
		}
	}
	return false
}

// attempt publishes a group if the broker's health admits it.
func (t *term) attempt(topic string, group []*item) {
	health := &t.brokerOf(topic).health
	alone, wait := health.admit(topic)
	if t.mayNotPublish() {
		wait = time.Second
	}
	if wait > 0 {
		postpone(group, wait)
		return
	}
	if alone && t.rows.Len() >= t.cfg.limit && t.tryAhead() {
		alone = false
	}
	if alone && len(group) > 1 {
		t.publish(topic, group[:1])
		group = group[1:]
		if _, wait := health.admit(topic); wait > 0 {
			postpone(group, wait)
			return
		}
	}
	t.publish(topic, group)
}

// mayNotPublish reports whether the lease is lost or too old, also by the wall
// clock, which goes on while a machine is suspended.
func (t *term) mayNotPublish() bool {
	return t.publishing.Err() != nil || time.Now().UnixMilli() > t.stopBy.Load()
}

// postpone holds rows back that were not tried.
func postpone(group []*item, wait time.Duration) {
	for _, it := range group {
		it.Retry(wait + rand.N(wait/4+1))
	}
}

// publish calls the publisher with a group and settles its rows. Rows that
// can't be decoded are parked.
func (t *term) publish(topic string, group []*item) {
	sent := make([]*item, 0, len(group))
	messages := make([]*message.Message, 0, len(group))
	for _, it := range group {
		m, err := it.Record.message()
		if err != nil {
			t.park(it, err)
			continue
		}
		m.SetContext(t.publishing)
		sent = append(sent, it)
		messages = append(messages, m)
	}
	if len(messages) == 0 {
		return
	}
	t.settle(sent, t.call(topic, messages))
}

// message builds what is published: the original id, metadata and payload.
func (r *row) message() (*message.Message, error) {
	metadata, err := driver.DecodeMetadata(r.metadata)
	if err != nil {
		return nil, driver.Permanent(fmt.Errorf("the row can't be decoded: %w", err))
	}
	return &message.Message{UUID: r.id, Metadata: metadata, Payload: r.payload}, nil
}

// call turns a panic of the publisher into an error.
func (t *term) call(topic string, messages []*message.Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the publisher panicked: %v", p)
		}
	}()
	return t.brokerOf(topic).to.Publish(topic, messages...)
}

// settle does with each row what the answer to a call of Publish demands.
func (t *term) settle(sent []*item, err error) {
	var partial *driver.BatchError
	switch {
	case err == nil:
		t.accept(sent)
	case errors.As(err, &partial) && len(partial.Errs) == len(sent):
		t.settleEach(sent, partial.Errs)
	case len(sent) > 1:
		if !isPermanent(err) {
			t.failed(sent[0].Record.topic, err)
		}
		for _, it := range sent { // find out which one it is
			it.Record.tries.alone = true
			it.Retry(0)
		}
	case isPermanent(err):
		sent[0].Record.tries.attempts++
		t.park(sent[0], err)
	default:
		t.refuse(sent[0], err, true)
	}
}

// settleEach handles a publisher's verdict about each message.
func (t *term) settleEach(sent []*item, errs []error) {
	accepted := make([]*item, 0, len(sent))
	for i, it := range sent {
		if errs[i] == nil {
			accepted = append(accepted, it)
		}
	}
	if len(accepted) > 0 {
		t.accept(accepted)
	}
	for i, it := range sent {
		switch err := errs[i]; {
		case err == nil:
		case isPermanent(err):
			it.Record.tries.attempts++
			t.park(it, err)
		default:
			t.refuse(it, err, len(accepted) == 0)
		}
	}
}

func (t *term) accept(sent []*item) {
	topic := sent[0].Record.topic
	t.detour.settled(sent...)
	for _, it := range sent {
		*it.Record = row{gone: true} // it may stay for as long as others of its slab
	}
	t.counters.published.Add(uint64(len(sent)))
	if t.brokerOf(topic).health.succeeded(len(sent)) {
		t.log.Info("outbox: the broker accepts events again")
	}
}

func (t *term) failed(topic string, err error) {
	if t.brokerOf(topic).health.failed(topic) {
		t.log.Error("outbox: the broker accepts nothing, trying one event at a time", "error", err)
	}
}

// refuse retries a row that failed by itself, or parks it after enough attempts.
// nothing says that the call got no other row accepted either.
func (t *term) refuse(it *item, err error, nothing bool) {
	r := it.Record
	t.counters.refused.Add(1)
	if failure.IsRejected(err) { // by a policy around the publisher: the broker was not asked
		t.failed(r.topic, err)
		it.Retry(max(backoff(1, maxRowPause), askedPause(err)))
		return
	}
	health := &t.brokerOf(r.topic).health
	news := health.charge(&r.tries)
	if news && nothing {
		t.failed(r.topic, err)
	}
	if !news && t.rows.Len() >= t.cfg.limit { // what is in hand may all be waiting for this one
		t.tryAhead()
	}
	if r.tries.attempts >= t.cfg.attempts {
		t.park(it, err)
		return
	}
	if r.tries.failures == 1 && !health.down() {
		t.log.Warn("outbox: an event was not accepted, trying again", "topic", r.topic, "event", r.id, "error", err)
	}
	it.Retry(max(backoff(r.tries.failures, maxRowPause), askedPause(err)))
}

// isPermanent reports whether the broker will never accept the row.
func isPermanent(err error) bool { return failure.Of(err) == failure.Permanent }

// askedPause is the pause that an error asks for.
func askedPause(err error) time.Duration {
	d, _ := failure.RetryAfter(err)
	return min(d, maxAskedPause)
}
