package sqlbus_test

import (
	"path/filepath"
	"testing"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
)

func TestConformance(t *testing.T) {
	eventbustest.Run(t, func(t *testing.T) eventbustest.Backend {
		url := "sqlite:" + filepath.Join(t.TempDir(), "bus.db")
		return eventbustest.Backend{Open: func() (driver.Broker, error) {
			return driver.Open(t.Context(), url, driver.Options{})
		}}
	})
}
