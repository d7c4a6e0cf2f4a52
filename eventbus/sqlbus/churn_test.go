package sqlbus

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// outcomes says of each event how often it was acknowledged.
type outcomes struct {
	mu       sync.Mutex
	random   *rand.Rand
	running  map[string]bool
	acked    map[string]int
	attempts map[string]int
	faults   []string
}

func (o *outcomes) handle(d *driver.Delivery) driver.Result {
	if d.Key != "" {
		o.begin(d.Key)
		defer o.end(d.Key)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.attempts[text(d)]++
	delay := time.Duration(o.random.IntN(30)) * time.Millisecond
	switch o.random.IntN(10) {
	case 0:
		return driver.Result{Redeliver: true}
	case 1:
		return driver.Result{Redeliver: true, Delay: delay, Hold: true}
	case 2, 3:
		return driver.Result{Redeliver: true, Delay: delay}
	}
	o.acked[text(d)]++
	return driver.Result{}
}

func (o *outcomes) begin(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.running[key] {
		o.faults = append(o.faults, "two events of key "+key+" at a time")
	}
	o.running[key] = true
}

func (o *outcomes) end(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running[key] = false
}

func (o *outcomes) done() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.acked)
}

// Members of three Brokers come and go, events fail in every way: with nobody
// crashing, each event is acknowledged once.
func TestChurnAcknowledgesEachEventOnce(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		path := tempPath(t)
		churn(t, func() *Broker { return openAt(t, path, Config{}) })
	})
	onServers(t, func(t *testing.T, url string) {
		churn(t, func() *Broker { return openOn(t, url, Config{}) })
	})
}

func churn(t *testing.T, open func() *Broker) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	o := &outcomes{random: rand.New(rand.NewPCG(seed, 1)), running: map[string]bool{}, acked: map[string]int{}, attempts: map[string]int{}}
	brokers := []*Broker{open(), open(), open()}
	const events = 1000
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for i := 0; i < events; i += 10 {
			var batch []*message.Message
			for n := i; n < i+10; n++ {
				key := fmt.Sprint("k", n%97)
				if n%5 == 0 {
					key = ""
				}
				m := msg(key, n)
				if n%7 == 0 {
					driver.SetDue(m, time.Now().Add(50*time.Millisecond))
				}
				batch = append(batch, m)
			}
			if err := brokers[i%3].Publish("t", batch...); err != nil {
				t.Error(err)
			}
		}
	})
	var stops []func()
	for o.done() < events {
		if len(stops) > 0 && random.IntN(len(stops)+1) > 0 {
			i := random.IntN(len(stops))
			stops[i]()
			stops = append(stops[:i], stops[i+1:]...)
		} else {
			stops = append(stops, start(t, brokers[random.IntN(3)], driver.Subscription{Concurrency: 1 + random.IntN(8), Handle: o.handle}))
		}
		<-time.After(time.Duration(random.IntN(300)) * time.Millisecond) // lets them work for a while
		if len(stops) == 0 {
			stops = append(stops, start(t, brokers[0], driver.Subscription{Concurrency: 8, Handle: o.handle}))
		}
	}
	publishing.Wait()
	for _, stop := range stops {
		stop()
	}
	require.Empty(t, o.faults)
	for id, n := range o.acked {
		require.Equal(t, 1, n, "event %s", id)
	}
	require.Zero(t, count(t, brokers[0], "SELECT count(*) FROM millrace_exceptions WHERE due_at IS NOT NULL"))
}
