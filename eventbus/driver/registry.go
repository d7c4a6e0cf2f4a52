package driver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Opener opens the broker that u names. It must refuse what it does not
// understand and must not keep credentials in errors.
type Opener func(ctx context.Context, u *url.URL, o Options) (Broker, error)

var registry = struct {
	sync.RWMutex
	openers map[string]Opener
}{openers: map[string]Opener{}}

// importPaths tells a user who forgot an import which one is missing.
var importPaths = map[string]string{
	"memory":     "github.com/millrace-go/millrace/eventbus/membus",
	"sqlite":     "github.com/millrace-go/millrace/eventbus/sqlbus",
	"postgres":   "github.com/millrace-go/millrace/eventbus/sqlbus",
	"postgresql": "github.com/millrace-go/millrace/eventbus/sqlbus",
	"mysql":      "github.com/millrace-go/millrace/eventbus/sqlbus",
	"kafka":      "github.com/millrace-go/millrace/eventbus/kafkabus",
	"kafkas":     "github.com/millrace-go/millrace/eventbus/kafkabus",
	"amqp":       "github.com/millrace-go/millrace/eventbus/amqpbus",
	"amqps":      "github.com/millrace-go/millrace/eventbus/amqpbus",
}

// Register makes an opener available for a URL scheme. It is meant for init
// functions and panics when the scheme is taken or the opener is nil.
func Register(scheme string, o Opener) {
	registry.Lock()
	defer registry.Unlock()
	if o == nil {
		panic("driver: Register of scheme " + scheme + " with a nil opener")
	}
	if _, taken := registry.openers[scheme]; taken {
		panic("driver: Register called twice for scheme " + scheme)
	}
	registry.openers[scheme] = o
}

// Schemes returns the registered URL schemes in order.
func Schemes() []string {
	registry.RLock()
	defer registry.RUnlock()
	schemes := make([]string, 0, len(registry.openers))
	for s := range registry.openers {
		schemes = append(schemes, s)
	}
	slices.Sort(schemes)
	return schemes
}

// Open parses rawURL and hands it to the opener of its scheme. Every scheme has
// the parameter prefix, which is put before the names of all topics and groups
// on the broker, so that environments can share one.
func Open(ctx context.Context, rawURL string, o Options) (Broker, error) {
	u, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	registry.RLock()
	open := registry.openers[u.Scheme]
	registry.RUnlock()
	if open == nil {
		return nil, unknownScheme(u.Scheme)
	}
	u, prefix, err := cutPrefix(u)
	if err != nil {
		return nil, err
	}
	b, err := open(ctx, u, o)
	if err != nil || prefix == "" {
		return b, err
	}
	return withPrefix(b, prefix), nil
}

func unknownScheme(scheme string) error {
	known := strings.Join(Schemes(), ", ")
	if path, ok := importPaths[scheme]; ok {
		return fmt.Errorf("the driver for %q is not linked in; add: import _ %q (registered: %s)", scheme+":", path, known)
	}
	return fmt.Errorf("unknown scheme %q in broker URL (registered: %s)", scheme+":", known)
}

// parse is url.Parse with errors that say nothing of the URL: even the reason
// may hold a part of a password.
func parse(rawURL string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("broker URL can't be parsed; if it holds a password, check that '#', '/', '@' and the like are percent-encoded in it")
	}
	if u.Scheme == "" {
		return nil, fmt.Errorf("broker URL has no scheme; write one of: %s", strings.Join(Schemes(), ":, ")+":")
	}
	return u, nil
}

const mask = "xxxxx"

// Redact returns rawURL with the password and secret-looking parameters
// replaced, fit for logs and errors.
func Redact(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "(unparsable URL)"
	}
	q := u.Query()
	masked := false
	for name := range q {
		if secret(name) {
			q.Set(name, mask)
			masked = true
		}
	}
	if masked {
		u.RawQuery = q.Encode()
	}
	if at := strings.LastIndexByte(u.Opaque, '@'); at >= 0 { // somebody forgot the slashes
		u.Opaque = mask + u.Opaque[at:]
	}
	return u.Redacted()
}

// secret reports whether a parameter's name says that its value is one.
func secret(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"pass", "pwd", "secret", "token", "key", "credential", "auth"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
