package kafkabus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// quietFor is how long a message of the client is not repeated.
const quietFor = 10 * time.Second

// logger passes the client's warnings on, each at most once in a while.
type logger struct {
	to *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // by message, of which the client has a fixed number
}

func newLogger(to *slog.Logger) *logger { return &logger{to: to, last: map[string]time.Time{}} }

// Level implements kgo.Logger.
func (l *logger) Level() kgo.LogLevel { return kgo.LogLevelWarn }

// Log implements kgo.Logger.
func (l *logger) Log(level kgo.LogLevel, message string, keyvals ...any) {
	if level > kgo.LogLevelWarn || !l.due(message) {
		return
	}
	for i := 1; i < len(keyvals); i += 2 {
		keyvals[i] = slog.StringValue(fmt.Sprint(keyvals[i]))
	}
	l.to.Log(context.Background(), slog.LevelWarn, "kafkabus: "+message, keyvals...)
}

func (l *logger) due(message string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last, known := l.last[message]; known && now.Sub(last) < quietFor {
		return false
	}
	l.last[message] = now
	return true
}
