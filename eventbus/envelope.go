package eventbus

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Metadata keys of the envelope: CloudEvents 1.0 in binary content mode, in
// the spelling of the Kafka protocol binding. Drivers for brokers whose binding
// spells them otherwise translate on the wire.
const (
	MetadataSpecVersion   = "ce_specversion"
	MetadataID            = "ce_id"
	MetadataSource        = "ce_source"
	MetadataType          = "ce_type"
	MetadataSubject       = "ce_subject"
	MetadataTime          = "ce_time"
	MetadataDataSchema    = "ce_dataschema"
	MetadataContentType   = "content-type"
	MetadataKey           = driver.MetadataKey
	MetadataCorrelationID = "ce_correlationid"
	MetadataCausationID   = "ce_causationid"
	MetadataTraceParent   = "ce_traceparent"
	MetadataTraceState    = "ce_tracestate"

	// MetadataExpiryTime is the Expiry Time extension of CloudEvents: the RFC 3339
	// time from which on the event is not to be handled any more.
	MetadataExpiryTime = "ce_expirytime"
	// MetadataPreviousAttempts is how often the call that published the event had
	// been tried before, if it had.
	MetadataPreviousAttempts = "ce_previousattempts"
)

const specVersion = "1.0"

// Attributes are the CloudEvents attributes of an event. Those that a foreign
// producer left out are empty.
type Attributes struct {
	// ID is unique within Source. Events published by Millrace carry a UUID.
	ID string
	// Source is the service that published the event.
	Source string
	// Type of the event; the topic's name unless WithType says otherwise.
	Type string
	// Subject within Source, if any.
	Subject string
	// Time of publishing; the zero time if the producer gave none.
	Time time.Time
	// ContentType of the payload.
	ContentType string
	// DataSchema is a URI, if any.
	DataSchema string
	// Key by which the event is ordered, if any.
	Key string
	// CorrelationID is shared by all events that go back to one cause.
	CorrelationID string
	// CausationID is the id of the event during whose handling this one was
	// published, if any.
	CausationID string
	// ExpiryTime is when the event is not to be handled any more; the zero time if
	// it does not expire.
	ExpiryTime time.Time
}

// ReadAttributes returns the attributes of m, which may come from any
// producer. An event without an id gets the message's UUID, one without a
// correlation id is its own cause. A time that can't be parsed is an error.
func ReadAttributes(m *message.Message) (Attributes, error) { return scan(m).check() }

// check completes the attributes.
func (e envelope) check() (Attributes, error) {
	if e.specVersion != "" && e.specVersion != specVersion {
		return e.Attributes, fmt.Errorf("event %s: CloudEvents version %q: only %s can be read", e.ID, e.specVersion, specVersion)
	}
	if e.time != "" {
		t, err := time.Parse(time.RFC3339Nano, e.time)
		if err != nil {
			return e.Attributes, fmt.Errorf("event %s: attribute time: %q is not an RFC 3339 time", e.ID, e.time)
		}
		e.Time = t
	}
	if e.expiry != "" {
		t, err := parseExpiry(e.ID, e.expiry)
		if err != nil {
			return e.Attributes, err
		}
		e.ExpiryTime = t
	}
	return e.Attributes, nil
}

// envelope is the metadata of a message that the library reads, unchecked.
type envelope struct {
	Attributes              // but for Time and ExpiryTime
	specVersion, time       string
	traceParent, traceState string
	redrive                 string
	expiry                  string
	previousAttempts        string
}

// scan goes through the metadata once, which is cheaper than looking up each
// name.
func scan(m *message.Message) envelope {
	var e envelope
	for name, value := range m.Metadata {
		switch name {
		case MetadataSpecVersion:
			e.specVersion = value
		case MetadataID:
			e.ID = value
		case MetadataSource:
			e.Source = value
		case MetadataType:
			e.Type = value
		case MetadataSubject:
			e.Subject = value
		case MetadataTime:
			e.time = value
		case MetadataContentType:
			e.ContentType = value
		case MetadataDataSchema:
			e.DataSchema = value
		case MetadataKey:
			e.Key = value
		case MetadataCorrelationID:
			e.CorrelationID = value
		case MetadataCausationID:
			e.CausationID = value
		case MetadataTraceParent:
			e.traceParent = value
		case MetadataTraceState:
			e.traceState = value
		case MetadataRedrive:
			e.redrive = value
		case MetadataExpiryTime:
			e.expiry = value
		case MetadataPreviousAttempts:
			e.previousAttempts = value
		}
	}
	e.ID = cmp.Or(e.ID, m.UUID)
	e.CorrelationID = cmp.Or(e.CorrelationID, e.ID)
	return e
}

func isStructured(contentType string) bool {
	const structured = "application/cloudevents+json"
	return len(contentType) >= len(structured) && strings.EqualFold(mediaType(contentType), structured)
}

// mediaType returns a content type without its parameters.
func mediaType(contentType string) string {
	t, _, _ := strings.Cut(contentType, ";")
	return strings.TrimSpace(t)
}

// unwrapStructured turns an event in structured content mode, as foreign
// producers may send it, into binary mode. Other messages stay as they are.
func unwrapStructured(m *message.Message) error {
	if !isStructured(m.Metadata[MetadataContentType]) {
		return nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(m.Payload, &fields); err != nil {
		return fmt.Errorf("event %s: structured CloudEvent: %w", m.UUID, err)
	}
	delete(m.Metadata, MetadataContentType)
	m.Payload = nil
	for name, raw := range fields {
		if err := unwrapAttribute(m, name, raw); err != nil {
			return fmt.Errorf("event %s: structured CloudEvent: attribute %s: %w", m.UUID, name, err)
		}
	}
	if err := unwrapData(m, fields); err != nil {
		return fmt.Errorf("event %s: structured CloudEvent: %w", m.UUID, err)
	}
	return nil
}

// unwrapData follows section 3.1 of the CloudEvents JSON format: data of a JSON
// content type, which is the default, stands as it is, other text as a string,
// bytes as data_base64.
func unwrapData(m *message.Message, fields map[string]json.RawMessage) error {
	if raw, ok := fields["data_base64"]; ok {
		if err := json.Unmarshal(raw, (*[]byte)(&m.Payload)); err != nil {
			return fmt.Errorf("data_base64: %w", err)
		}
		return nil
	}
	raw, ok := fields["data"]
	if !ok {
		return nil
	}
	if m.Metadata[MetadataContentType] == "" {
		m.Metadata[MetadataContentType] = JSON.ContentType()
	}
	m.Payload = message.Payload(raw)
	var text string
	if !isJSON(m.Metadata[MetadataContentType]) && json.Unmarshal(raw, &text) == nil {
		m.Payload = message.Payload(text)
	}
	return nil
}

func isJSON(contentType string) bool {
	t := strings.ToLower(mediaType(contentType))
	return strings.HasSuffix(t, "/json") || strings.HasSuffix(t, "+json")
}

func unwrapAttribute(m *message.Message, name string, raw json.RawMessage) error {
	if name == "data" || name == "data_base64" {
		return nil
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil || value == nil {
		return err
	}
	text, ok := value.(string)
	if !ok {
		text = string(raw) // numbers and booleans in their canonical form
	}
	if name == "datacontenttype" {
		m.Metadata[MetadataContentType] = text
		return nil
	}
	m.Metadata["ce_"+name] = text
	return nil
}
