package metrics

import "github.com/prometheus/client_golang/prometheus"

// Limits gives the numbers of a node's limits. Each function is called once for
// each scrape.
type Limits struct {
	Refused func() map[string]uint64 // what was refused, by limit
}

var limited = describe("limited_total", "What was refused, dropped or closed because of a limit, by limit.", "limit")

// Describe implements [prometheus.Collector].
func (l Limits) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(l, ch) }

// Collect implements [prometheus.Collector].
func (l Limits) Collect(ch chan<- prometheus.Metric) {
	for limit, n := range l.Refused() {
		ch <- prometheus.MustNewConstMetric(limited, prometheus.CounterValue, float64(n), limit)
	}
}
