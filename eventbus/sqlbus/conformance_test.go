package sqlbus

import (
	"path/filepath"
	"testing"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/internal/testserver"
)

func TestConformance(t *testing.T) {
	eventbustest.Run(t, func(t *testing.T) eventbustest.Backend {
		return conforming(t, "sqlite:"+filepath.Join(t.TempDir(), "bus.db"))
	})
}

func TestConformancePostgres(t *testing.T) { conformanceOf(t, testserver.Postgres) }

func TestConformanceMySQL(t *testing.T) { conformanceOf(t, testserver.MySQL) }

func conformanceOf(t *testing.T, server string) {
	url := newDatabase(t, server)
	eventbustest.Run(t, func(t *testing.T) eventbustest.Backend { return conforming(t, url) })
}

func conforming(t *testing.T, url string) eventbustest.Backend {
	return eventbustest.Backend{URL: url, Open: func() (driver.Broker, error) {
		return driver.Open(t.Context(), url, driver.Options{})
	}}
}
