package resilience

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// ConfigError is all that is wrong with a Config.
type ConfigError struct {
	Problems []ConfigProblem
}

// ConfigProblem is one thing that is wrong.
type ConfigProblem struct {
	Path    string // where, such as policies.payments[1].retry.attempts
	Problem string // what, such as: must be at least 1, got -3
}

// String returns path and problem.
func (p ConfigProblem) String() string {
	if p.Path == "" {
		return p.Problem
	}
	return p.Path + ": " + p.Problem
}

// Error lists the problems, one a line.
func (e *ConfigError) Error() string {
	if len(e.Problems) == 1 {
		return "resilience: config: " + e.Problems[0].String()
	}
	var s strings.Builder
	fmt.Fprintf(&s, "resilience: config: %d problems:", len(e.Problems))
	for _, p := range e.Problems {
		s.WriteString("\n\t" + p.String())
	}
	return s.String()
}

// problems collects what is wrong with a Config.
type problems struct{ list []ConfigProblem }

func (p *problems) add(path, format string, args ...any) {
	p.list = append(p.list, ConfigProblem{path, fmt.Sprintf(format, args...)})
}

func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	return &ConfigError{p.list}
}

// constructor adds what a constructor found wrong with its Config, which was
// made of the given settings: names of fields become those of the file.
func (p *problems) constructor(path string, settings any, err error) {
	keys := map[string]string{}
	fileKeys(keys, reflect.TypeOf(settings), "", "")
	all := []error{err}
	if joined, ok := errors.Unwrap(err).(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, one := range all {
		field, rest, _ := strings.Cut(one.Error(), " ")
		at, isField := keys[field]
		if isField && strings.HasPrefix(rest, "must ") {
			p.add(within(path, at), "%s", inFileKeys(rest, keys))
		} else {
			p.add(path, "%s", inFileKeys(one.Error(), keys))
		}
	}
}

var fieldName = regexp.MustCompile(`\b[A-Z][A-Za-z]*(\.[A-Z][A-Za-z]*)?\b`)

func inFileKeys(s string, keys map[string]string) string {
	return fieldName.ReplaceAllStringFunc(s, func(name string) string {
		if key, ok := keys[name]; ok {
			return key
		}
		return name
	})
}

// fileKeys maps names of fields, such as Backoff.Base, to those in files. A
// field within another one is also known by its own name.
func fileKeys(keys map[string]string, t reflect.Type, name, key string) {
	for i := range t.NumField() {
		f := t.Field(i)
		k := within(key, fieldKey(f))
		keys[within(name, f.Name)] = k
		if name != "" {
			keys[f.Name] = k
		}
		if f.Type.Kind() == reflect.Struct {
			fileKeys(keys, f.Type, within(name, f.Name), k)
		}
	}
}
