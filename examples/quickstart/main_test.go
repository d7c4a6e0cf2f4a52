package main

import (
	"bytes"
	"context"
	"log"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEveryUserIsWelcomed(t *testing.T) {
	for name, url := range map[string]string{
		"default": "",
		"memory":  "memory:",
		"sqlite":  "sqlite:" + filepath.Join(t.TempDir(), "quickstart.db"),
	} {
		t.Run(name, func(t *testing.T) {
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
		})
	}
}
