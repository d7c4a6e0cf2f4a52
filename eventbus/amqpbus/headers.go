package amqpbus

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace-go/millrace/eventbus/driver"
)

const (
	headerUUID = "_watermill_message_uuid" // as watermill-amqp has it

	metadataContentType = "content-type"

	// CloudEvents attributes are metadata with the first prefix and, by the AMQP
	// binding, application properties with the second; the third is its form for
	// consumers that don't like colons.
	attributePrefix       = "ce_"
	headerAttribute       = "cloudEvents:"
	headerAttributeOldest = "cloudEvents_"

	// headerEscaped precedes names of metadata that would mean something else as
	// a header.
	headerEscaped = "millrace:"

	maxShort   = 255     // bytes of a header's name or of a string property
	maxHeaders = 120_000 // bytes of all headers: they must fit one frame of 128 KiB
)

// brokerHeaders are set by RabbitMQ, or understood by it, and no metadata.
var brokerHeaders = map[string]bool{
	"CC": true, "BCC": true,
	"x-death": true, "x-delivery-count": true, "x-acquired-count": true,
	"x-first-death-exchange": true, "x-first-death-queue": true, "x-first-death-reason": true,
	"x-last-death-exchange": true, "x-last-death-queue": true, "x-last-death-reason": true,
	"x-received-from": true, "x-delay": true,
}

// headerOf returns the name of the header for a metadata key.
func headerOf(key string) string {
	if name, ok := strings.CutPrefix(key, attributePrefix); ok {
		return headerAttribute + name
	}
	if key == headerUUID || brokerHeaders[key] || strings.HasPrefix(key, headerAttribute) ||
		strings.HasPrefix(key, headerAttributeOldest) || strings.HasPrefix(key, headerEscaped) {
		return headerEscaped + key
	}
	return key
}

// keyOf is the way back; ok is false for what is no metadata.
func keyOf(header string) (key string, ok bool) {
	if name, found := strings.CutPrefix(header, headerAttribute); found {
		return attributePrefix + name, true
	}
	if name, found := strings.CutPrefix(header, headerAttributeOldest); found {
		return attributePrefix + name, true
	}
	if name, found := strings.CutPrefix(header, headerEscaped); found {
		return name, true
	}
	return header, header != headerUUID && !brokerHeaders[header]
}

// isShort reports whether s can be a string property as it is.
func isShort(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxShort
}

// encode makes a publishing of m with a payload of its own.
func encode(m *message.Message, payload []byte) (amqp.Publishing, error) {
	headers := make(amqp.Table, len(m.Metadata)+1)
	size := 0
	p := amqp.Publishing{Headers: headers, DeliveryMode: amqp.Persistent, Body: payload}
	add := func(name, value string) error {
		if len(name) > maxShort {
			return driver.Permanent(fmt.Errorf("event %s: the name of metadata %.40q... has %d bytes as a header, AMQP takes %d", m.UUID, name, len(name), maxShort))
		}
		headers[name] = value
		size += len(name) + len(value) + 6
		return nil
	}
	for k, v := range m.Metadata {
		if k == metadataContentType && isShort(v) {
			p.ContentType = v
			continue
		}
		if err := add(headerOf(k), v); err != nil {
			return p, err
		}
	}
	_ = add(headerUUID, m.UUID)
	if size > maxHeaders {
		return p, driver.Permanent(fmt.Errorf("event %s: id and metadata take %d bytes as headers, AMQP takes %d", m.UUID, size, maxHeaders))
	}
	if isShort(m.UUID) {
		p.MessageId = m.UUID
	}
	return p, nil
}

// record is an event in the hands of a consumer.
type record struct {
	id, key  string
	metadata message.Metadata
	payload  []byte

	pending // its place among those that are not acknowledged
}

// NewMessage implements driver.Delivery.Original.
func (r *record) NewMessage() *message.Message {
	return &message.Message{UUID: r.id, Metadata: maps.Clone(r.metadata), Payload: r.payload}
}

// position stands for the place in the topic, which queues don't have: a hash of
// the id, so that it is the same for every group and differs between events.
func (r *record) position() driver.Position {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(r.id) {
		h = (h ^ uint64(r.id[i])) * 1099511628211
	}
	return driver.Position{Offset: int64(h >> 1)}
}

// decode reads whatever a publisher in whatever language sent. It never fails:
// headers that are no text become text or are left out.
func decode(d *amqp.Delivery) *record {
	r := &record{metadata: make(message.Metadata, len(d.Headers)+1), payload: d.Body}
	for header, value := range d.Headers {
		key, ok := keyOf(header)
		if !ok {
			continue
		}
		if text, ok := textOf(value); ok {
			r.metadata[key] = text
		}
	}
	if d.ContentType != "" {
		r.metadata[metadataContentType] = d.ContentType
	}
	r.id, _ = textOf(d.Headers[headerUUID])
	if r.id == "" {
		r.id = d.MessageId
	}
	if r.id == "" {
		r.id = watermill.NewUUID()
	}
	r.key = r.metadata[driver.MetadataKey]
	r.tag = d.DeliveryTag
	return r
}

// textOf returns the text form of a header's value, which tables, arrays and
// nulls have none of.
func textOf(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	case bool:
		return strconv.FormatBool(v), true
	case int8, int16, int32, int64, int, uint8, uint16, uint32, uint64:
		return fmt.Sprint(v), true
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	case time.Time:
		return v.UTC().Format(time.RFC3339), true
	}
	return "", false
}
