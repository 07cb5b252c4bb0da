package metrics

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin-io/rejoin/pkg/adapter/redis"
)

// A collector turns snapshots into metrics. All numbers of a scrape come from one snapshot.
type collector[S any] struct {
	snapshot func() S
	metrics  []metric[S]
}

// Describe implements [prometheus.Collector].
func (c collector[S]) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements [prometheus.Collector].
func (c collector[S]) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot()
	for _, m := range c.metrics {
		m(s, ch)
	}
}

// A metric sends its samples of a snapshot.
type metric[S any] func(s S, ch chan<- prometheus.Metric)

type number interface {
	~int | ~int64 | ~uint64 | ~float64
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("rejoin_"+name, help, labels, nil)
}

func count[S any](name, help string, value func(S) uint64) metric[S] {
	return single(prometheus.CounterValue, name, help, value)
}

func gauge[S any, N number](name, help string, value func(S) N) metric[S] {
	return single(prometheus.GaugeValue, name, help, value)
}

func single[S any, N number](kind prometheus.ValueType, name, help string, value func(S) N) metric[S] {
	desc := describe(name, help)
	return func(s S, ch chan<- prometheus.Metric) {
		ch <- prometheus.MustNewConstMetric(desc, kind, float64(value(s)))
	}
}

// counts returns a metric with a counter for each value of a label, and gauges one with gauges.
func counts[S any, K comparable](name, help, label string, values func(S) map[K]uint64) metric[S] {
	return labelled(prometheus.CounterValue, name, help, label, values)
}

func gauges[S any, K comparable, N number](name, help, label string, values func(S) map[K]N) metric[S] {
	return labelled(prometheus.GaugeValue, name, help, label, values)
}

func labelled[S any, K comparable, N number](kind prometheus.ValueType, name, help, label string, values func(S) map[K]N) metric[S] {
	desc := describe(name, help, label)
	return func(s S, ch chan<- prometheus.Metric) {
		for key, value := range values(s) {
			ch <- prometheus.MustNewConstMetric(desc, kind, float64(value), fmt.Sprint(key))
		}
	}
}

func histogram[S any](name, help string, values func(S) redis.Histogram) metric[S] {
	desc := describe(name, help)
	return func(s S, ch chan<- prometheus.Metric) {
		h := values(s)
		buckets := make(map[float64]uint64, len(h.Bounds))
		for i, bound := range h.Bounds {
			buckets[bound] = h.Counts[i]
		}
		ch <- prometheus.MustNewConstHistogram(desc, h.Count, h.Sum, buckets)
	}
}
