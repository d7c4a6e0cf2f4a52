package resilience

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// ParseConfig reads a Config in JSON. Unknown and repeated fields and values of
// a wrong type are refused, all together in a *ConfigError. What the values mean
// is for Config.Validate, or NewRegistry, to check.
func ParseConfig(data []byte) (Config, error) {
	var raw json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return Config{}, fmt.Errorf("resilience: config: line %d: %w", lineOf(data, err), err)
	}
	var cfg Config
	var d configDecoder
	d.decode("", raw, reflect.ValueOf(&cfg).Elem())
	if err := d.err(); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

func lineOf(data []byte, err error) int {
	at := len(data)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = min(at, int(syntax.Offset))
	}
	return 1 + bytes.Count(data[:at], []byte("\n"))
}

// configDecoder does what package json does, but does not stop at the first
// problem and knows where it is.
type configDecoder struct{ problems }

func (d *configDecoder) decode(path string, raw json.RawMessage, v reflect.Value) {
	_, isText := v.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case string(raw) == "null":
	case isText:
		d.leaf(path, raw, v)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(path, raw, v.Elem())
	case v.Kind() == reflect.Struct:
		d.fields(path, raw, v)
	case v.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		d.object(path, raw, func(key string, raw json.RawMessage) {
			elem := reflect.New(v.Type().Elem()).Elem()
			d.decode(within(path, key), raw, elem)
			v.SetMapIndex(reflect.ValueOf(key), elem)
		})
	case v.Kind() == reflect.Slice:
		d.array(path, raw, v)
	default:
		d.leaf(path, raw, v)
	}
}

func (d *configDecoder) fields(path string, raw json.RawMessage, v reflect.Value) {
	var known []string
	byKey := map[string]reflect.Value{}
	for i := range v.NumField() {
		key := fieldKey(v.Type().Field(i))
		known = append(known, key)
		byKey[key] = v.Field(i)
	}
	d.object(path, raw, func(key string, raw json.RawMessage) {
		if f, ok := byKey[key]; ok {
			d.decode(within(path, key), raw, f)
		} else {
			d.add(within(path, key), "is unknown; known are %s", strings.Join(known, ", "))
		}
	})
}

// object calls each for the members in their order.
func (d *configDecoder) object(path string, raw json.RawMessage, each func(key string, raw json.RawMessage)) {
	if raw[0] != '{' {
		d.add(path, "must be an object, got %s", raw)
		return
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	_, _ = dec.Token() // the syntax is known to be right
	seen := map[string]bool{}
	for dec.More() {
		key, _ := dec.Token()
		var member json.RawMessage
		_ = dec.Decode(&member)
		name := key.(string)
		if seen[name] {
			d.add(within(path, name), "is there more than once")
		}
		seen[name] = true
		each(name, member)
	}
}

func (d *configDecoder) array(path string, raw json.RawMessage, v reflect.Value) {
	var elems []json.RawMessage
	if json.Unmarshal(raw, &elems) != nil {
		d.add(path, "must be a list, got %s", raw)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(elems), len(elems)))
	for i, elem := range elems {
		d.decode(fmt.Sprintf("%s[%d]", path, i), elem, v.Index(i))
	}
}

func (d *configDecoder) leaf(path string, raw json.RawMessage, v reflect.Value) {
	err := json.Unmarshal(raw, v.Addr().Interface())
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
	case errors.As(err, &wrong):
		d.add(path, "must be %s, got %s", wants(v), raw)
	default:
		d.add(path, "%v", err)
	}
}

// wants says what a field takes.
func wants(v reflect.Value) string {
	switch {
	case v.Type() == reflect.TypeFor[Duration]():
		return `a duration such as "250ms" or "1m30s"`
	case v.Kind() == reflect.Int:
		return "a whole number"
	case v.Kind() == reflect.Float64:
		return "a number"
	case v.Kind() == reflect.Bool:
		return "true or false"
	}
	return "a string"
}

// fieldKey is the name of a field in JSON and YAML.
func fieldKey(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return key
}

func within(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
