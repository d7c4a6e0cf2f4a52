package otelsaga_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/otelsaga"
)

type discard struct{}

func (discard) Publish(string, ...*message.Message) error { return nil }
func (discard) Close() error                              { return nil }

type trip struct{}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		reader := metric.NewManualReader()
		telemetry := otelsaga.Config{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))}
		observer, err := otelsaga.NewObserver(telemetry)
		require.NoError(t, err)
		slow := saga.Call(func(context.Context, trip) (int, error) { time.Sleep(3 * time.Second); return 0, nil }, nil)
		bad := saga.Call(func(context.Context, trip) (int, error) { return 0, eventbus.Permanent(errors.New("no")) }, nil)
		step := func(name string, do saga.Action[trip]) saga.Node[trip] {
			return saga.Step[trip]{Name: name, Do: do, Timeout: time.Minute, Retry: saga.Retry{Attempts: 1}}
		}
		good := saga.Definition[trip]{Name: "good", Version: 1, Steps: []saga.Node[trip]{saga.Pivot[trip]{}, step("a", slow), step("b", slow)}}
		stuck := saga.Definition[trip]{Name: "stuck", Version: 1, Steps: []saga.Node[trip]{saga.Pivot[trip]{}, step("a", bad)}}
		o, err := saga.NewOrchestrator(saga.NewMemoryStore(discard{}), saga.Config{Observer: observer}, good, stuck)
		require.NoError(t, err)
		watch, err := otelsaga.Watch(o, telemetry, "good", "stuck")
		require.NoError(t, err)
		_, err = saga.Execute(ctx, o, good, "1", trip{})
		require.NoError(t, err)
		_, err = saga.Execute(ctx, o, stuck, "1", trip{})
		require.NoError(t, err)
		time.Sleep(10 * time.Second)

		var all metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(ctx, &all))
		got := map[string]metricdata.Aggregation{}
		for _, m := range all.ScopeMetrics[0].Metrics {
			got[m.Name] = m.Data
		}
		wait := got["millrace.saga.transition.wait"].(metricdata.Histogram[float64]).DataPoints[0]
		require.EqualValues(t, 1, wait.Count)
		require.InDelta(t, 3, wait.Sum, 0.001)
		total := int64(0)
		for _, p := range got["millrace.saga.instances"].(metricdata.Sum[int64]).DataPoints {
			total += p.Value
		}
		require.EqualValues(t, 2, total)
		ages := got["millrace.saga.stuck.age"].(metricdata.Gauge[float64]).DataPoints
		require.Len(t, ages, 2)
		require.InDelta(t, 10, max(ages[0].Value, ages[1].Value), 0.001)
		require.Len(t, got["millrace.saga.duration"].(metricdata.Histogram[float64]).DataPoints, 1, "the stuck one has not ended")
		require.Len(t, got["millrace.saga.transitions"].(metricdata.Sum[int64]).DataPoints, 3)
		require.NoError(t, watch.Unregister())
	})
}
