package eventbus

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/internal/hop"
)

// What bounds the handling of an event travels with it and with the events that
// are published meanwhile: when it expires, and how often what published it had
// been tried.

// stampBounds writes the bounds of an event that is published with ctx.
func stampBounds(ctx context.Context, h *handling, m *message.Message, expiry time.Time) {
	if !expiry.IsZero() {
		m.Metadata[MetadataExpiryTime] = expiry.UTC().Format(time.RFC3339Nano)
	} else if h != nil && h.cause.expiry != "" && !h.cause.dead {
		m.Metadata[MetadataExpiryTime] = h.cause.expiry
	}
	n := hop.Previous(ctx)
	if h != nil {
		n -= h.cause.previous // the attempts at this event, or a chain without end would carry its first failure for ever
	}
	if n > 0 {
		m.Metadata[MetadataPreviousAttempts] = strconv.Itoa(n)
	}
}

func parseExpiry(id, text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("event %s: attribute expirytime: %q is not an RFC 3339 time", id, text)
	}
	return t, nil
}

// parsePrevious returns 0 for what is not a number of attempts: a foreign
// attribute of that name is no reason to refuse an event.
func parsePrevious(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxPrevious {
		return 0
	}
	return n
}

const maxPrevious = 1 << 20
