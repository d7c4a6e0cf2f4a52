package eventbus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
)

// Codec turns payloads into bytes and back. Implementations must be safe for
// concurrent use.
type Codec interface {
	// ContentType is written to the event's datacontenttype attribute.
	ContentType() string
	// Marshal encodes v, the payload. The result must not refer to memory that
	// anybody changes later, v's included.
	Marshal(v any) ([]byte, error)
	// Unmarshal decodes data into v, a non-nil pointer to the payload. It must
	// neither change data nor let the payload refer to it.
	Unmarshal(data []byte, v any) error
}

var (
	// JSON is encoding/json. Unknown fields are ignored, so that producers may
	// add some.
	JSON Codec = jsonCodec{}

	// Protobuf encodes generated messages; the topic's type is the pointer, as
	// in NewTopic[*shopv1.OrderPlaced].
	Protobuf Codec = protobufCodec{}

	// Bytes passes payloads of type []byte through.
	Bytes Codec = bytesCodec{}
)

type jsonCodec struct{}

func (jsonCodec) ContentType() string                { return "application/json" }
func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

type protobufCodec struct{}

func (protobufCodec) ContentType() string { return "application/protobuf" }

func (protobufCodec) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("protobuf: %T is not a proto.Message", v)
	}
	if !m.ProtoReflect().IsValid() {
		return nil, errors.New("protobuf: message is nil")
	}
	return proto.Marshal(m)
}

func (protobufCodec) Unmarshal(data []byte, v any) error {
	target := reflect.ValueOf(v).Elem()
	if target.Kind() == reflect.Pointer && target.IsNil() {
		target.Set(reflect.New(target.Type().Elem()))
	}
	m, ok := target.Interface().(proto.Message)
	if !ok {
		return fmt.Errorf("protobuf: %s is not a proto.Message", target.Type())
	}
	return proto.Unmarshal(data, m)
}

type bytesCodec struct{}

func (bytesCodec) ContentType() string { return "application/octet-stream" }

func (bytesCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("bytes: %T is not []byte", v)
	}
	return bytes.Clone(b), nil
}

func (bytesCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("bytes: %T is not *[]byte", v)
	}
	*b = bytes.Clone(data)
	return nil
}
