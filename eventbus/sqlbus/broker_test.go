package sqlbus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func TestRoundTripKeepsEveryByte(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	got := make(chan *driver.Delivery, 10)
	start(t, b, driver.Subscription{Handle: into(got)})
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	m := msg(string(all), "x")
	m.UUID, m.Payload = "id\x00\xff", all
	m.Metadata.Set("bin\x00\xff", string(all))
	m.Metadata.Set("", "empty key")
	m.Metadata.Set("empty value", "")
	empty := msg("", "")
	empty.Payload = nil
	require.NoError(t, b.Publish("t", m))
	d := receive(t, got)
	require.Equal(t, m.UUID, d.Message.UUID)
	require.Equal(t, m.Metadata, d.Message.Metadata)
	require.Equal(t, all, []byte(d.Message.Payload))
	require.Equal(t, string(all), d.Key)
	require.Equal(t, "t", d.Topic)
	require.Equal(t, 1, d.Attempt)
	require.Equal(t, driver.Position{Partition: int32(partitionOf(string(all), partitionCount)), Offset: 1}, d.Position)
	require.NoError(t, b.Publish("t", empty))
	d = receive(t, got)
	require.Empty(t, d.Message.Payload)
	require.NotNil(t, d.Message.Metadata)
	require.Empty(t, d.Key)
}

func TestEveryGroupSeesEveryEvent(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	for i := range 5 {
		require.NoError(t, b.Publish("t", msg("k", i)))
	}
	for _, group := range []string{"a", "b"} {
		got := make(chan *driver.Delivery, 10)
		start(t, b, driver.Subscription{Group: group, Handle: into(got)})
		for i := range 5 {
			require.Equal(t, fmt.Sprint(i), text(receive(t, got)))
		}
	}
}

func TestStartNewestSkipsWhatIsThere(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	require.NoError(t, b.Publish("t", msg("k", "old")))
	got := make(chan *driver.Delivery, 10)
	s := driver.Subscription{Topic: "t", Group: "g", Concurrency: 1, Start: driver.StartNewest, Handle: into(got)}
	_, err := b.Subscribe(t.Context(), s)
	require.NoError(t, err)
	require.NoError(t, b.Publish("t", msg("k", "new"))) // before Run, after Subscribe
	start(t, b, s)
	require.Equal(t, "new", text(receive(t, got)))
}

func TestResumeAfterClose(t *testing.T) {
	path := tempPath(t)
	b := openAt(t, path, Config{})
	got := make(chan *driver.Delivery, 100)
	stop := start(t, b, driver.Subscription{Handle: into(got)})
	for i := range 10 {
		require.NoError(t, b.Publish("t", msg("k", i)))
	}
	for range 10 {
		receive(t, got)
	}
	stop()
	require.NoError(t, b.Publish("t", msg("k", "later")))
	require.NoError(t, b.Close())

	again := openAt(t, path, Config{NoProvision: true})
	start(t, again, driver.Subscription{Start: driver.StartNewest, Handle: into(got)})
	require.Equal(t, "later", text(receive(t, got)))
	silent(t, got, 50*time.Millisecond)
}

func TestOversizeIsRefusedAsAWhole(t *testing.T) {
	b := openAt(t, tempPath(t), Config{MaxPayload: 10})
	err := b.Publish("t", msg("k", strings.Repeat("x", 11)))
	require.ErrorIs(t, err, driver.ErrTooLarge)
	require.True(t, driver.IsPermanent(err))
	err = b.Publish("t", msg("k", "small"), msg("k", strings.Repeat("x", 11)))
	var batch *driver.BatchError
	require.ErrorAs(t, err, &batch)
	require.Len(t, batch.Errs, 2)
	require.ErrorContains(t, batch.Errs[0], "another of its batch")
	require.ErrorIs(t, batch.Errs[1], driver.ErrTooLarge)
	require.Zero(t, count(t, b, "SELECT count(*) FROM millrace_events"))
	require.NoError(t, b.Publish("t", msg("k", strings.Repeat("x", 10))))
	require.NoError(t, b.Publish("t"))
}

func TestInvalidNamesAreRefused(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	require.ErrorIs(t, b.Publish("no spaces", msg("k", 1)), driver.ErrInvalidName)
	_, err := b.Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: "", Concurrency: 1, Handle: into(nil)})
	require.ErrorIs(t, err, driver.ErrInvalidName)
	bad := msg("k", 1)
	bad.Metadata.Set(driver.MetadataDue, "tomorrow")
	require.ErrorContains(t, b.Publish("t", bad), "not an RFC 3339 time")
}

func TestPublishEndsWithItsContext(t *testing.T) {
	path := tempPath(t)
	b := openAt(t, path, Config{})
	other := openAt(t, path, Config{})
	unlock := lock(t, other)
	cause := errors.New("had enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
	defer cancel()
	m := msg("k", 1)
	m.SetContext(ctx)
	err := b.Publish("t", m)
	require.ErrorIs(t, err, cause)
	require.ErrorContains(t, err, path)
	unlock()
	require.NoError(t, b.Publish("t", msg("k", 2)))
	require.Equal(t, 1, count(t, b, "SELECT count(*) FROM millrace_events"), "what was given up must not be published later")
}

// lock holds the file's lock as a long transaction of another process would.
func lock(t *testing.T, b *Broker) (unlock func()) {
	locked, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- fileOf(b).writer.do(context.Background(), 0, func(*session) error {
			close(locked)
			<-release
			return nil
		})
	}()
	receive(t, locked)
	return func() {
		close(release)
		require.NoError(t, receive(t, done))
	}
}

func TestPublishWaitsForALockedFile(t *testing.T) {
	path := tempPath(t)
	b, other := openAt(t, path, Config{}), openAt(t, path, Config{})
	unlock := lock(t, other)
	published := make(chan error, 1)
	go func() { published <- b.Publish("t", msg("k", 1)) }()
	silent(t, published, 100*time.Millisecond)
	unlock()
	require.NoError(t, receive(t, published))
}

func TestCloseEndsRunningConsumersAndPublishers(t *testing.T) {
	path := tempPath(t)
	b, other := openAt(t, path, Config{}), openAt(t, path, Config{})
	entered, proceed := make(chan struct{}), make(chan struct{})
	c, err := b.Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: "g", Concurrency: 1, Handle: func(*driver.Delivery) driver.Result {
		close(entered)
		<-proceed
		return driver.Result{}
	}})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(t.Context()) }()
	require.NoError(t, b.Publish("t", msg("k", 1)))
	receive(t, entered)
	require.NoError(t, b.Close(), "must not wait for the handler")
	require.NoError(t, b.Close())
	require.ErrorIs(t, b.Publish("t", msg("k", 2)), driver.ErrClosed)
	_, err = b.Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: "g", Concurrency: 1, Handle: into(nil)})
	require.ErrorIs(t, err, driver.ErrClosed)
	require.ErrorIs(t, c.Run(t.Context()), driver.ErrClosed)
	silent(t, ended, 20*time.Millisecond)
	close(proceed)
	require.ErrorIs(t, receive(t, ended), driver.ErrClosed)
	require.Equal(t, 1, count(t, other, "SELECT max(cursor) FROM millrace_groups"), "what the handler did is committed")
	require.Zero(t, count(t, other, "SELECT count(*) FROM millrace_groups WHERE owner IS NOT NULL"))
}

func TestConcurrentPublishersShareCommits(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	const publishers, each = 8, 50
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				if err := b.Publish("t", msg(fmt.Sprint(p), i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := make(chan *driver.Delivery, publishers*each)
	start(t, b, driver.Subscription{Concurrency: 4, Handle: into(got)})
	next := map[string]int{}
	for range publishers * each {
		d := receive(t, got)
		require.Equal(t, fmt.Sprint(next[d.Key]), text(d), "key %s", d.Key)
		next[d.Key]++
	}
}

func TestAFailingOpDoesNotFailItsNeighbours(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	unlock := lock(t, b)
	broken := errors.New("broken")
	results := make(chan error, 20)
	for i := range 20 {
		go func() {
			results <- fileOf(b).writer.do(context.Background(), 0, func(s *session) error {
				if i == 7 {
					_, _ = s.exec("INSERT INTO millrace_meta VALUES ('bad', 0)")
					return broken
				}
				_, err := s.exec("INSERT INTO millrace_meta VALUES (?, 0)", fmt.Sprint(i))
				return err
			})
		}()
	}
	eventually(t, "all are queued", func() bool {
		fileOf(b).writer.mu.Lock()
		defer fileOf(b).writer.mu.Unlock()
		return len(fileOf(b).writer.ops) == 20
	})
	unlock()
	failed := 0
	for range 20 {
		if err := receive(t, results); err != nil {
			require.Equal(t, broken, err)
			failed++
		}
	}
	require.Equal(t, 1, failed)
	require.Equal(t, 19+2, count(t, b, "SELECT count(*) FROM millrace_meta"))
}
