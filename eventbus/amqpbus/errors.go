package amqpbus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"syscall"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// explainDial says which host refused and, where the reason is terse, what to do.
func (c *Config) explainDial(address string, err error, w *wire) error {
	if hint := c.dialHint(address, err, w); hint != "" {
		return fmt.Errorf("%s: %s: %w", address, hint, err)
	}
	return fmt.Errorf("%s: %w", address, err)
}

func (c *Config) dialHint(address string, err error, w *wire) string {
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var refused *amqp.Error
	host, port, _ := net.SplitHostPort(address)
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %q can't be resolved", host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there; is RabbitMQ running, and is this its AMQP port?"
	case errors.As(err, &record):
		return "the port does not speak TLS; use amqp: instead of amqps:, or RabbitMQ's TLS port, usually 5671"
	case errors.As(err, &authority):
		return "the server's certificate is signed by an authority that is not trusted; name its file by tls_ca"
	case errors.As(err, &hostname):
		return "the server's certificate is for another name; give the right one by tls_server_name"
	case strings.Contains(err.Error(), "certificate required") || strings.Contains(err.Error(), "bad certificate"):
		return "the server wants a client certificate; give one by tls_cert and tls_key"
	case strings.HasPrefix(w.begin(), tlsAlert) && c.TLS == nil:
		return "the port speaks TLS; use amqps: instead of amqp:, or RabbitMQ's plain port, usually 5672"
	case isForeign(w.begin()):
		return fmt.Sprintf("what listens on port %s does not speak AMQP 0-9-1", port)
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &refused) && refused.Code != amqp.FrameError:
		return c.refusalHint(refused)
	case w != nil && w.begin() == "" && c.TLS == nil:
		return "the connection was closed without a word; if the port speaks TLS, use amqps: instead of amqp:"
	}
	return ""
}

func (c *Config) refusalHint(e *amqp.Error) string {
	vhost := e.Code == amqp.NotAllowed || *e == *amqp.ErrVhost
	switch {
	case vhost && strings.Contains(e.Reason, "not found"):
		return fmt.Sprintf("there is no virtual host %q; create it with rabbitmqctl add_vhost, or name another in the path of the URL", c.VHost)
	case vhost:
		return fmt.Sprintf("user %q may not use the virtual host %q; rabbitmqctl set_permissions would allow it", c.Username, c.VHost)
	case e.Code == amqp.AccessRefused && c.External:
		return "the client certificate is refused as a login; is the plugin rabbitmq_auth_mechanism_ssl enabled?"
	case e.Code == amqp.AccessRefused && c.Username == "guest":
		return "user \"guest\" or its password is refused; RabbitMQ lets guest in from its own machine only"
	case e.Code == amqp.AccessRefused:
		return fmt.Sprintf("user %q or its password is refused", c.Username)
	}
	return ""
}

// begin returns the first bytes that the server sent.
func (w *wire) begin() string {
	if w == nil {
		return ""
	}
	return string(w.first[:w.n.Load()])
}

const tlsAlert = "\x15\x03"

// isForeign reports whether these first bytes are neither a method frame, nor
// TLS, nor the header by which brokers refuse a version of the protocol.
func isForeign(begin string) bool {
	return begin != "" && !strings.ContainsRune("\x01\x15\x16", rune(begin[0])) && !strings.HasPrefix(begin, "AMQP")
}

// isCode reports whether the broker answered with an AMQP reply code.
func isCode(err error, code int) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == code && e.Server
}

var currentIs = regexp.MustCompile(`but current is (?:the value )?'([^']*)'`)

// explainDeclare turns the broker's refusals to declare something into what to
// do about them. Others pass as they are: they may be gone with the next try.
func explainDeclare(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case isCode(err, amqp.PreconditionFailed), isCode(err, amqp.NotAllowed), isCode(err, amqp.CommandInvalid), isCode(err, amqp.NotImplemented):
		return driver.Permanent(fmt.Errorf("%s exists, but not as it must be: %w", what, err))
	case isCode(err, amqp.AccessRefused):
		return driver.Permanent(fmt.Errorf("%s may not be created by this user; grant the permission, or have it created and set provision=false: %w", what, err))
	}
	return fmt.Errorf("%s: %w", what, err)
}

// explainRefusal is about one event, of which the broker closed the channel.
func explainRefusal(why *amqp.Error) error {
	switch {
	case why.Code == amqp.AccessRefused:
		return driver.Permanent(fmt.Errorf("this user may not publish to it: %w", why))
	case why.Code == amqp.PreconditionFailed && strings.Contains(why.Reason, "message size"):
		return driver.Permanent(fmt.Errorf("%w for the broker's max_message_size: %w", driver.ErrTooLarge, why))
	}
	return driver.Permanent(fmt.Errorf("the broker does not take it: %w", why))
}

// explainGroup is explainDeclare for the exchange that tells how a group is made.
func (n groupNames) explainGroup(err error) error {
	if !isCode(err, amqp.PreconditionFailed) || !strings.Contains(err.Error(), "alternate-exchange") {
		return explainDeclare(fmt.Sprintf("exchange %q", n.base), err)
	}
	current := currentIs.FindStringSubmatch(err.Error())
	if current == nil {
		return explainDeclare(fmt.Sprintf("exchange %q", n.base), err)
	}
	return driver.Permanent(fmt.Errorf("%w: %w", n.madeOtherwise(current[1]), err))
}

// madeOtherwise is the error about a group with another alternate exchange.
func (n groupNames) madeOtherwise(alternate string) error {
	return driver.Permanent(fmt.Errorf("the group was created with other queues: it has %s, this is configured for %s; use the same queues and queue_type, or remove the group first",
		madeOf(alternate), madeOf(n.alternate)))
}

// madeOf reads the name of an alternate exchange: "4 quorum queues".
func madeOf(alternate string) string {
	made := alternate[strings.LastIndexByte(alternate, ':')+1:]
	number, kind, _ := strings.Cut(made, "-")
	return fmt.Sprintf("queues=%s and queue_type=%s", number, kind)
}

// notProvisioned is the error about something that may not be created.
func notProvisioned(kind, name, call string) error {
	return driver.Permanent(fmt.Errorf("%s %q: %w; create it with Broker.Provision(%s) from a client that may, or drop provision=false", kind, name, driver.ErrNotProvisioned, call))
}
