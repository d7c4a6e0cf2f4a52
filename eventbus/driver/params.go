package driver

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Params decodes the query of a broker URL into typed settings and refuses
// what nobody asked for. Call a method per known parameter, then Err.
type Params struct {
	values url.Values
	known  []string
	errs   []error
}

// NewParams reads the query of u.
func NewParams(u *url.URL) *Params {
	values, err := url.ParseQuery(u.RawQuery)
	p := &Params{values: values}
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("query can't be parsed: %w", err))
	}
	return p
}

// Int sets *into when the parameter is present; it must be within min and max.
func (p *Params) Int(name string, into *int, min, max int) {
	p.each(name, func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < min || n > max {
			return fmt.Errorf("want a whole number from %d to %d", min, max)
		}
		*into = n
		return nil
	})
}

// Duration sets *into when the parameter is present, such as 500ms or 24h; it
// must be within min and max.
func (p *Params) Duration(name string, into *time.Duration, min, max time.Duration) {
	p.each(name, func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d < min || d > max {
			return fmt.Errorf("want a duration from %v to %v", min, max)
		}
		*into = d
		return nil
	})
}

// Bool sets *into when the parameter is present.
func (p *Params) Bool(name string, into *bool) {
	p.each(name, func(s string) error {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("want true or false")
		}
		*into = b
		return nil
	})
}

// String sets *into when the parameter is present; it must not be empty.
func (p *Params) String(name string, into *string) {
	p.each(name, func(s string) error {
		if s == "" {
			return errors.New("want a value")
		}
		*into = s
		return nil
	})
}

// Enum sets *into when the parameter is present; it must be one of allowed.
func (p *Params) Enum(name string, into *string, allowed ...string) {
	p.each(name, func(s string) error {
		if !slices.Contains(allowed, s) {
			return fmt.Errorf("want one of %s", strings.Join(allowed, ", "))
		}
		*into = s
		return nil
	})
}

func (p *Params) each(name string, set func(string) error) {
	p.known = append(p.known, name)
	values, ok := p.values[name]
	if !ok {
		return
	}
	if len(values) > 1 {
		p.errs = append(p.errs, fmt.Errorf("parameter %q is given %d times", name, len(values)))
		return
	}
	if err := set(values[0]); err != nil {
		shown := values[0]
		if secret(name) {
			shown = mask
		}
		p.errs = append(p.errs, fmt.Errorf("parameter %s=%q: %w", name, shown, err))
	}
}

// Err returns every problem found: bad values, repeated and unknown parameters.
func (p *Params) Err() error {
	errs := p.errs
	names := make([]string, 0, len(p.values))
	for name := range p.values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.Contains(p.known, name) {
			errs = append(errs, p.unknown(name))
		}
	}
	return errors.Join(errs...)
}

func (p *Params) unknown(name string) error {
	hint := ""
	for _, k := range p.known {
		if distance(name, k) <= 2 {
			hint = fmt.Sprintf(" (did you mean %q?)", k)
		}
	}
	return fmt.Errorf("unknown parameter %q%s; known: %s", name, hint, strings.Join(append(slices.Clone(p.known), prefixParam), ", "))
}

// distance is Levenshtein's, on bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
