// Package testserver finds the real servers that tests need.
//
// A test asks by [URL] for a server by name. The variable
// MILLRACE_TEST_<NAME>_URL says where it is; without it the test is skipped,
// visibly, or fails if MILLRACE_TEST_REQUIRE lists the name. .ci/services
// starts all of them and prints the variables.
package testserver

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Names of the servers that tests ask for.
const (
	Kafka    = "kafka"
	AMQP     = "amqp"
	Postgres = "postgres"
	MySQL    = "mysql"
)

// URL returns the URL of the named server. It skips or fails t without one.
func URL(t testing.TB, name string) string {
	t.Helper()
	variable := "MILLRACE_TEST_" + strings.ToUpper(name) + "_URL"
	url := os.Getenv(variable)
	switch {
	case url != "":
	case slices.Contains(strings.Split(os.Getenv("MILLRACE_TEST_REQUIRE"), ","), name):
		t.Fatalf("%s is not set, but MILLRACE_TEST_REQUIRE lists %q", variable, name)
	default:
		t.Skipf("%s is not set; .ci/services start, then eval \"$(.ci/services env)\"", variable)
	}
	return url
}

// services maps the names of servers to those that .ci/services knows.
var services = map[string]string{Kafka: "kafka", AMQP: "rabbitmq", Postgres: "postgres", MySQL: "mariadb"}

// Kill ends the named server with SIGKILL and returns when it is gone. It is
// for tests that own the server: every other user feels it too.
func Kill(t testing.TB, name string) { t.Helper(); control(t, "kill9", name) }

// Terminate ends the named server with SIGTERM and returns when it is gone.
func Terminate(t testing.TB, name string) { t.Helper(); control(t, "term", name) }

// Start starts the named server again, on its old data and port, and returns
// when it answers.
func Start(t testing.TB, name string) { t.Helper(); control(t, "up", name) }

func control(t testing.TB, action, name string) {
	t.Helper()
	script := os.Getenv("MILLRACE_TEST_SERVICES")
	if script == "" {
		t.Skip("MILLRACE_TEST_SERVICES, the path of .ci/services, is not set, so servers can't be restarted")
	}
	if out, err := exec.Command(script, action, services[name]).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", action, name, err, out)
	}
}
