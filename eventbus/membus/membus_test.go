package membus_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/eventbus/membus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	eventbustest.Run(t, func(t *testing.T) eventbustest.Backend {
		b, err := membus.New(membus.Config{})
		require.NoError(t, err)
		return eventbustest.Backend{Open: func() (driver.Broker, error) { return b, nil }}
	})
}

func TestConformanceWithPrefix(t *testing.T) {
	eventbustest.Run(t, func(t *testing.T) eventbustest.Backend {
		b, err := driver.Open(t.Context(), "memory:?prefix=staging.", driver.Options{})
		require.NoError(t, err)
		return eventbustest.Backend{Open: func() (driver.Broker, error) { return b, nil }}
	})
}
