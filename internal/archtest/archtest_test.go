// Package archtest holds the directions in which packages may import each other.
package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/millrace-go/millrace"

// rule forbids imports. A prefix ends at a path boundary; "..." stands for
// every import of the module that is not in allowed.
type rule struct {
	why     string
	from    []string // packages, with those below them
	except  []string
	allowed []string // within the module; nil: anything not forbidden
	forbid  []string
}

// testHelpers are imported by tests alone.
var testHelpers = []string{"internal/testdb", "internal/faultdb", "saga/internal/storetest"}

var rules = []rule{
	{
		why:  "the driver seam knows nothing of the house",
		from: []string{"eventbus/driver"}, allowed: []string{"eventbus/driver", "eventbus/internal/ring", "internal/failure"},
	},
	{
		why:  "a driver needs the seam and nothing internal, so it could move out",
		from: []string{"eventbus/sqlbus"}, allowed: []string{"eventbus/sqlbus", "eventbus/driver"},
	},
	{
		why:  "a driver needs the seam and nothing internal, so it could move out",
		from: []string{"eventbus/kafkabus"}, allowed: []string{"eventbus/kafkabus", "eventbus/driver"},
	},
	{
		why:  "a driver needs the seam and nothing internal, so it could move out",
		from: []string{"eventbus/amqpbus"}, allowed: []string{"eventbus/amqpbus", "eventbus/driver"},
	},
	{
		why:    "a user's binary has the client of the brokers it uses, and no adapter that was replaced",
		from:   []string{"eventbus/kafkabus", "eventbus/amqpbus", "eventbus/sqlbus"},
		except: []string{"eventbus/sqlbus/watermillsql"},
		forbid: []string{
			"github.com/ThreeDotsLabs/watermill-kafka", "github.com/ThreeDotsLabs/watermill-amqp", "github.com/ThreeDotsLabs/watermill-sql",
			"github.com/IBM/sarama", "github.com/twmb/franz-go/pkg/kfake", "github.com/Shopify/toxiproxy",
		},
	},
	{
		why:  "the memory broker is part of eventbus and below it",
		from: []string{"eventbus/membus"}, allowed: []string{"eventbus/membus", "eventbus/driver", "eventbus/internal/ring"},
	},
	{
		why:    "eventbus never imports a broker, nor what stands on it",
		from:   []string{"eventbus"},
		except: []string{"eventbus/sqlbus", "eventbus/kafkabus", "eventbus/amqpbus"},
		forbid: []string{
			module + "/eventbus/sqlbus", module + "/eventbus/kafkabus", module + "/eventbus/amqpbus", module + "/outbox", module + "/idempotency", module + "/saga", module + "/console",
			"database/sql", "modernc.org/sqlite", "github.com/IBM/sarama", "github.com/twmb/franz-go", "github.com/rabbitmq/amqp091-go",
			"github.com/ThreeDotsLabs/watermill-kafka", "github.com/ThreeDotsLabs/watermill-amqp", "github.com/ThreeDotsLabs/watermill-sql",
		},
	},
	{
		why:  "outbox and idempotency stand on eventbus and beside each other",
		from: []string{"outbox"}, allowed: []string{"outbox", "eventbus", "eventbus/driver", "internal"},
	},
	{
		why:  "outbox and idempotency stand on eventbus and beside each other",
		from: []string{"idempotency"}, allowed: []string{"idempotency", "eventbus", "eventbus/driver", "internal"},
	},
	{
		why:  "resilience stands alone: who needs a policy declares the method",
		from: []string{"resilience"}, allowed: []string{"resilience", "internal/failure", "internal/hop", "internal/dialect"},
	},
	{
		why:    "the policies themselves need the standard library, and so do clients and servers of net/http",
		from:   []string{"resilience"},
		except: []string{"resilience/grpcresilience", "resilience/otelresilience", "resilience/watermillresilience"},
		forbid: []string{"google.golang.org", "go.opentelemetry.io", "github.com/ThreeDotsLabs", "github.com/failsafe-go", "github.com/sony", "gopkg.in"},
	},
	{
		why:    "what an error means is said by its methods",
		from:   []string{"eventbus", "outbox", "idempotency"},
		forbid: []string{module + "/resilience"},
	},
	{
		why:    "telemetry is for those who want it",
		from:   []string{"saga", "resilience", "eventbus", "outbox", "idempotency"},
		except: []string{"saga/otelsaga", "resilience/otelresilience"},
		forbid: []string{"go.opentelemetry.io"},
	},
	{
		why:    "chaos is no part of a program that does not ask for it",
		from:   []string{"resilience"},
		except: []string{"resilience/chaos"},
		forbid: []string{module + "/resilience/chaos"},
	},
	{
		why:  "saga stands on outbox, idempotency and eventbus",
		from: []string{"saga"}, allowed: []string{"saga", "outbox", "idempotency", "eventbus", "eventbus/driver", "internal"},
	},
	{
		why:    "a dialect is a value, not a dependency: users bring their database driver",
		from:   []string{"outbox", "idempotency", "saga", "internal"},
		except: append([]string{"outbox/pgxoutbox", "idempotency/pgxinbox", "saga/pgxsaga", "internal/pgxtx"}, testHelpers...),
		forbid: []string{"modernc.org/sqlite", "github.com/jackc/pgx", "github.com/go-sql-driver/mysql"},
	},
	{
		why:    "a user's binary has the clients it uses",
		from:   []string{"outbox", "idempotency", "saga", "internal"},
		except: []string{"idempotency/redisstore", "idempotency/grpcidempotency"},
		forbid: []string{"github.com/redis", "google.golang.org/grpc"},
	},
	{
		why:    "examples paste into another module, so they import nothing internal",
		from:   []string{"examples"},
		forbid: []string{module + "/internal", module + "/eventbus/internal"},
	},
	{
		why:    "test helpers never reach a user's binary",
		from:   []string{""},
		except: append([]string{"eventbus/eventbustest", "saga/sagatest"}, testHelpers...),
		forbid: []string{
			module + "/eventbus/eventbustest", module + "/idempotency/storetest", module + "/saga/sagatest", module + "/internal/testserver", module + "/internal/testdb",
			"github.com/stretchr/testify", "pgregory.net/rapid", "go.uber.org/goleak",
		},
	},
	{
		why:    "the test kit itself needs the standard library only",
		from:   []string{"eventbus/eventbustest", "idempotency/storetest", "saga/sagatest"},
		forbid: []string{"github.com/stretchr/testify", "pgregory.net/rapid", "go.uber.org/goleak"},
	},
}

func TestImportDirections(t *testing.T) {
	imports := importsByPackage(t, filepath.Join("..", ".."))
	require.Contains(t, imports, "eventbus", "the walk found the module")
	for _, r := range rules {
		for _, from := range r.from {
			found := false
			for pkg := range imports {
				found = found || below(pkg, []string{from})
			}
			require.True(t, found, "no package is below %q; rule: %s", from, r.why)
		}
		for pkg, paths := range imports {
			if !below(pkg, r.from) || below(pkg, r.except) {
				continue
			}
			for path, file := range paths {
				if r.breaks(path) {
					t.Errorf("%s imports %s\nrule: %s", file, path, r.why)
				}
			}
		}
	}
}

func (r rule) breaks(path string) bool {
	for _, f := range r.forbid {
		if path == f || strings.HasPrefix(path, f+"/") {
			return true
		}
	}
	inModule, ok := strings.CutPrefix(path, module+"/")
	return ok && r.allowed != nil && !below(inModule, r.allowed)
}

// below reports whether pkg is one of roots or within one.
func below(pkg string, roots []string) bool {
	for _, root := range roots {
		if root == "" || pkg == root || strings.HasPrefix(pkg, root+"/") {
			return true
		}
	}
	return false
}

// importsByPackage maps a package's folder to what its non-test files import.
func importsByPackage(t *testing.T, root string) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (name == "benchmarks" || name == "testdata" || strings.HasPrefix(name, ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.ImportsOnly)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(folder)
		if all[pkg] == nil {
			all[pkg] = map[string]string{}
		}
		for _, spec := range file.Imports {
			all[pkg][strings.Trim(spec.Path.Value, `"`)] = path
		}
		return nil
	}))
	return all
}
