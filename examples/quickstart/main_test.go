package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testserver"
)

func TestEveryUserIsWelcomed(t *testing.T) {
	for name, url := range map[string]string{
		"default": "",
		"memory":  "memory:",
		"sqlite":  "sqlite:" + filepath.Join(t.TempDir(), "quickstart.db"),
	} {
		t.Run(name, func(t *testing.T) { everyUserIsWelcomed(t, url) })
	}
	for _, server := range []string{testserver.Kafka, testserver.AMQP, testserver.Postgres, testserver.MySQL} {
		t.Run(server, func(t *testing.T) {
			url := testserver.URL(t, server)
			separator := "?"
			if strings.Contains(url, "?") {
				separator = "&"
			}
			everyUserIsWelcomed(t, url+separator+"prefix=quickstart-"+rand.Text()[:8]+".")
		})
	}
}

func everyUserIsWelcomed(t *testing.T, url string) {
	var out bytes.Buffer
	log.SetOutput(&out)
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, run(ctx, url))
	require.NoError(t, ctx.Err(), "it must end by itself")
	for _, u := range users {
		require.Contains(t, out.String(), "welcome, "+u.Name)
	}
}
