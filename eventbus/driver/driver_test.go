package driver_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func ExampleParams() {
	u, _ := url.Parse("carrier:?wait=5s&bird=2&colour=grey")
	wait, birds := time.Second, 1
	p := driver.NewParams(u)
	p.Duration("wait", &wait, 0, time.Minute)
	p.Int("birds", &birds, 1, 10)
	fmt.Println(wait, birds)
	fmt.Println(p.Err())
	// Output:
	// 5s 1
	// unknown parameter "bird" (did you mean "birds"?); known: wait, birds, prefix
	// unknown parameter "colour"; known: wait, birds, prefix
}

func TestParamsReportEveryProblem(t *testing.T) {
	u, err := url.Parse("x:?n=11&d=2h&b=maybe&ok=true&twice=1&twice=2")
	require.NoError(t, err)
	var n, twice int
	var d time.Duration
	var b, ok bool
	p := driver.NewParams(u)
	p.Int("n", &n, 1, 10)
	p.Duration("d", &d, 0, time.Hour)
	p.Bool("b", &b)
	p.Bool("ok", &ok)
	p.Int("twice", &twice, 1, 10)
	require.EqualError(t, p.Err(), strings.Join([]string{
		`parameter n="11": want a whole number from 1 to 10`,
		`parameter d="2h": want a duration from 0s to 1h0m0s`,
		`parameter b="maybe": want true or false`,
		`parameter "twice" is given 2 times`,
	}, "\n"))
	require.True(t, ok)
	require.Zero(t, n, "a bad value changes nothing")
}

func TestRedactHidesSecrets(t *testing.T) {
	for raw, want := range map[string]string{
		"amqp://user:geheim@host:5672/v":        "amqp://user:xxxxx@host:5672/v",
		"kafka://h?sasl_password=geheim&acks=1": "kafka://h?acks=1&sasl_password=xxxxx",
		"x://h?AccessToken=geheim":              "x://h?AccessToken=xxxxx",
		"sqlite:data/bus.db?poll=5ms":           "sqlite:data/bus.db?poll=5ms",
		"://geheim":                             "(unparsable URL)",
		"memory:?passwd=geheim":                 "memory:?passwd=xxxxx",
		"x://h?api_key=geheim":                  "x://h?api_key=xxxxx",
		"kafka:user:geheim@host":                "kafka:xxxxx@host",
	} {
		require.Equal(t, want, driver.Redact(raw))
	}
}

func TestRegisterRefusesMistakes(t *testing.T) {
	require.Panics(t, func() { driver.Register("nothing", nil) })
	opener := func(context.Context, *url.URL, driver.Options) (driver.Broker, error) { return nil, nil }
	driver.Register("test-once", opener)
	require.Panics(t, func() { driver.Register("test-once", opener) })
	require.Contains(t, driver.Schemes(), "test-once")
}

func TestBatchErrorNamesTheFirstReasonAndUnwrapsAll(t *testing.T) {
	first, second := errors.New("first"), driver.Permanent(errors.New("second"))
	err := &driver.BatchError{Topic: "t", Errs: []error{nil, first, nil, second}}
	require.EqualError(t, err, `topic "t": 2 of 4 events were not published, first: first`)
	require.ErrorIs(t, err, first)
	require.ErrorIs(t, err, second)
}

func TestPermanentIsFoundInTheChain(t *testing.T) {
	require.NoError(t, driver.Permanent(nil))
	err := fmt.Errorf("outer: %w", driver.Permanent(errors.New("inner")))
	require.True(t, driver.IsPermanent(err))
	require.EqualError(t, err, "outer: inner")
	require.False(t, driver.IsPermanent(errors.New("plain")))
	require.False(t, driver.IsPermanent(nil))
	require.True(t, driver.IsPermanent(errors.Join(notPermanent{}, fmt.Errorf("x: %w", driver.Permanent(errors.New("y"))))))
	require.True(t, driver.IsPermanent(driver.TooLarge("t", "e", 2, 1)))
}

type notPermanent struct{}

func (notPermanent) Error() string   { return "may pass" }
func (notPermanent) Permanent() bool { return false }

func TestDueTimeRoundTrips(t *testing.T) {
	m := message.NewMessage("e", nil)
	due, err := driver.Due(m)
	require.NoError(t, err)
	require.True(t, due.IsZero())
	at := time.Date(2026, 11, 21, 1, 2, 3, 456789, time.FixedZone("CET", 3600))
	driver.SetDue(m, at)
	due, err = driver.Due(m)
	require.NoError(t, err)
	require.True(t, at.Equal(due))
	m.Metadata[driver.MetadataDue] = "soon"
	_, err = driver.Due(m)
	require.EqualError(t, err, `driver: event e: metadata millrace_due: "soon" is not an RFC 3339 time`)
	require.True(t, driver.IsPermanent(err))
}

func FuzzParams(f *testing.F) {
	f.Add("wait=5s&birds=2")
	f.Add("%zz=&wait")
	f.Fuzz(func(_ *testing.T, query string) {
		p := driver.NewParams(&url.URL{RawQuery: query})
		var n int
		p.Int("birds", &n, 0, 10)
		_ = p.Err()
	})
}
