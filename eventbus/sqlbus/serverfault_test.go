package sqlbus

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// cutAll ends every connection to the database but those of db.
func cutAll(t *testing.T, db *sql.DB, url string) {
	t.Helper()
	query := "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
	kill := "SELECT pg_terminate_backend(%d)"
	if strings.HasPrefix(url, "mysql") {
		query, kill = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()", "KILL %d"
	}
	rows, err := db.Query(query)
	require.NoError(t, err)
	var ids []int
	for rows.Next() {
		var id int
		require.NoError(t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(t, rows.Err())
	for _, id := range ids {
		_, _ = db.Exec(fmt.Sprintf(kill, id)) // it may have gone
	}
}

// Connections that are cut, during commits as well, cost neither events nor
// order, and nothing is written twice.
func TestConnectionsThatAreCut(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b, consumer := openOn(t, url, Config{}), openOn(t, url, Config{})
		const publishers, each = 4, 150
		got := make(chan *driver.Delivery, 2*publishers*each)
		start(t, consumer, driver.Subscription{Concurrency: 4, Handle: into(got)})
		raw := rawDB(t, url)
		defer raw.Close()
		raw.SetMaxOpenConns(1)
		var publishing sync.WaitGroup
		for p := range publishers {
			publishing.Go(func() {
				for i := range each {
					if err := b.Publish("t", msg(fmt.Sprint(p), fmt.Sprintf("%d-%03d", p, i))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		done := make(chan struct{})
		go func() { publishing.Wait(); close(done) }()
		for cuts := 0; ; cuts++ {
			select {
			case <-done:
				t.Log("cuts:", cuts)
			case <-time.After(20 * time.Millisecond):
				cutAll(t, raw, url)
				continue
			}
			break
		}
		last, distinct := map[string]string{}, map[string]bool{}
		for len(distinct) < publishers*each {
			d := receive(t, got)
			if !distinct[text(d)] {
				require.Greater(t, text(d), last[d.Key])
				last[d.Key] = text(d)
			}
			distinct[text(d)] = true
		}
		var rows int
		require.NoError(t, raw.QueryRow("SELECT count(*) FROM millrace_events").Scan(&rows))
		require.Equal(t, publishers*each, rows)
	})
}

// proxied returns the URL by way of a proxy that can be told to misbehave.
func proxied(t *testing.T, rawURL string) (string, *toxiproxy.Proxy) {
	t.Helper()
	u, err := url.Parse(rawURL)
	require.NoError(t, err)
	srv := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := toxiproxy.NewProxy(srv, t.Name(), "127.0.0.1:0", u.Host)
	require.NoError(t, p.Start())
	t.Cleanup(p.Stop)
	u.Host = p.Listen
	return u.String(), p
}

// stop makes one direction of the proxy swallow everything; connections stay open.
func stopData(t *testing.T, p *toxiproxy.Proxy, stream string) (resume func()) {
	t.Helper()
	_, err := p.Toxics.AddToxicJson(strings.NewReader(`{"name":"` + stream + `","type":"timeout","stream":"` + stream + `","attributes":{"timeout":0}}`))
	require.NoError(t, err)
	return func() { require.NoError(t, p.Toxics.RemoveToxic(context.Background(), stream)) }
}

func TestPublishOverAHalfOpenConnection(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		through, proxy := proxied(t, url)
		b, direct := openOn(t, through, Config{NoListen: true}), openOn(t, url, Config{})
		got := make(chan *driver.Delivery, 10)
		start(t, direct, driver.Subscription{Handle: into(got)})
		require.NoError(t, b.Publish("t", msg("k", 1)))
		require.Equal(t, "1", text(receive(t, got)))

		// The answer is lost, but not the event.
		resume := stopData(t, proxy, "downstream")
		published := make(chan error, 1)
		go func() { published <- b.Publish("t", msg("k", 2)) }()
		require.Equal(t, "2", text(receive(t, got)))
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		impatient := msg("k", "late")
		impatient.SetContext(ctx)
		require.ErrorIs(t, b.Publish("t", impatient), context.DeadlineExceeded)
		silent(t, published, 0)
		resume()
		require.NoError(t, receive(t, published), "it is found in the log")
		require.NoError(t, b.Publish("t", msg("k", 3)))
		require.Equal(t, "3", text(receive(t, got)), "neither 2 again nor what nobody waits for")
	})
}

func TestPublishWhoseAnswerNeverComes(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		through, proxy := proxied(t, url)
		b := openOn(t, through, Config{NoListen: true})
		require.NoError(t, b.Publish("t", msg("k", 1)))
		resume := stopData(t, proxy, "downstream")
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		m := msg("k", 2)
		m.SetContext(ctx)
		err := b.Publish("t", m)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "event id-2 may have been published")
		require.ErrorContains(t, err, "not known whether the commit went through")
		resume()
	})
}

func TestConsumerOverAHalfOpenConnection(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		through, proxy := proxied(t, url)
		b, direct := openOn(t, through, Config{Lease: time.Second}), openOn(t, url, Config{})
		got := make(chan *driver.Delivery, 10)
		start(t, b, driver.Subscription{Handle: into(got)})
		require.NoError(t, direct.Publish("t", msg("k", 1)))
		require.Equal(t, "1", text(receive(t, got)))
		for _, stream := range []string{"upstream", "downstream"} {
			resume := stopData(t, proxy, stream)
			require.NoError(t, direct.Publish("t", msg("k", stream)))
			silent(t, got, 500*time.Millisecond)
			resume()
			for text(receive(t, got)) != stream { // what was not settled before comes again
			}
		}
	})
}

func TestPublishWhileTheServerIsDown(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		through, proxy := proxied(t, url)
		b := openOn(t, through, Config{})
		require.NoError(t, b.Publish("t", msg("k", 1)))
		proxy.Stop()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		m := msg("k", 2)
		m.SetContext(ctx)
		err := b.Publish("t", m)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		waiting := make(chan error, 1)
		go func() { waiting <- b.Publish("t", msg("k", 3)) }()
		silent(t, waiting, 300*time.Millisecond)
		require.NoError(t, proxy.Start())
		require.NoError(t, receive(t, waiting))
	})
}

// A member that was thought dead must not touch the progress of its successor.
func TestRemovedMemberIsFencedOnServers(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b, other := openOn(t, url, Config{}), openOn(t, url, Config{})
		entered, proceed := make(chan struct{}, 10), make(chan struct{})
		start(t, b, driver.Subscription{Handle: func(*driver.Delivery) driver.Result {
			entered <- struct{}{}
			<-proceed
			return driver.Result{}
		}})
		require.NoError(t, other.Publish("t", msg("k", 1), msg("k", 2)))
		receive(t, entered)
		raw := rawDB(t, url)
		defer raw.Close()
		got := make(chan *driver.Delivery, 10)
		stop := start(t, other, driver.Subscription{Handle: func(d *driver.Delivery) driver.Result {
			got <- d
			return driver.Result{Redeliver: text(d) == "2", Delay: time.Hour, Hold: true}
		}})
		eventually(t, "two members", func() bool { return count(t, b, "SELECT count(*) FROM millrace_members") == 2 })
		// As if its lease had ended; it finds out when it looks.
		eventually(t, "the other takes over", func() bool {
			_, err := raw.Exec("DELETE FROM millrace_members WHERE member = (SELECT owner FROM millrace_groups WHERE token = 1 ORDER BY token LIMIT 1)")
			require.NoError(t, err)
			return len(got) > 0
		})
		require.Equal(t, "1", text(receive(t, got)))
		require.Equal(t, "2", text(receive(t, got)))
		first := count(t, b, "SELECT min(position) FROM millrace_events")
		eventually(t, "the new owner's progress", func() bool {
			return count(t, b, `SELECT count(*) FROM millrace_groups WHERE "cursor" = ?`, first) == 1
		})
		close(proceed)
		stop()
		receive(t, entered) // event 2, which the other gave up
		eventually(t, "all is done", func() bool {
			return count(t, b, `SELECT count(*) FROM millrace_groups WHERE "cursor" > ?`, first) == 1
		})
	})
}
