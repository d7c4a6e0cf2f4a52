package main

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFlagsHaveTheirDefaults(t *testing.T) {
	c, err := parseFlags(nil, io.Discard)
	require.NoError(t, err)
	require.Equal(t, config{addr: "127.0.0.1:8080", data: "data/ecommerce", bus: "sqlite:data/ecommerce/bus.db?lease=2s", services: allServices, seed: 1}, c)
}

func TestServicesStartInOneOrder(t *testing.T) {
	c, err := parseFlags([]string{"-services", "order, email,order", "-latency", "5ms"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, []string{"email", "order"}, c.services)
	require.Equal(t, 5*time.Millisecond, c.latency)
	require.Equal(t, "127.0.0.1:0", c.addr, "without a storefront any port will do")

	c, err = parseFlags([]string{"-services", "order", "-addr", "127.0.0.1:8081"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:8081", c.addr)
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-services", "order,mail"}, `-services "order,mail": there is no service "mail", only email,shipping,warehouse,payment,order,storefront`},
		{[]string{"-services", ""}, `-services "": there is no service ""`},
		{[]string{"-decline", "1.5"}, "-decline 1.5: must be between 0 and 1"},
		{[]string{"-decline", "NaN"}, "-decline NaN: must be between 0 and 1"},
		{[]string{"-fail", "1"}, "-fail 1: must be at least 0 and below 1"},
		{[]string{"-fail", "-0.1"}, "-fail -0.1: must be at least 0 and below 1"},
		{[]string{"-latency", "-1s"}, "-latency -1s: must not be negative"},
		{[]string{"-latency", "fast"}, `invalid value "fast" for flag -latency`},
		{[]string{"-demo", "-1"}, "-demo -1: must not be negative"},
		{[]string{"-demo", "5", "-services", "order"}, "-demo 5: the demo needs the storefront in -services"},
		{[]string{"-bus", "memory:", "-services", "order"}, "-bus memory:: reaches only services of one process"},
		{[]string{"-addr", "8080"}, `-addr "8080": address 8080: missing port in address`},
		{[]string{"-data", ""}, "-data: the directory is empty"},
		{[]string{"demo"}, `unexpected argument ["demo"]`},
		{[]string{"-nonsense"}, "flag provided but not defined: -nonsense"},
	} {
		_, err := parseFlags(tt.args, io.Discard)
		require.ErrorContains(t, err, tt.want, "%q", tt.args)
	}
}
