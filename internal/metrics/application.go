package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin-io/rejoin/internal/app"
)

var (
	refusals      = describe("refusals_total", "Events of clients refused because of missing permissions, by event.", "event")
	tokensRefused = describe("tokens_refused_total", "Tokens refused, at CONNECT or of connected clients, by the code that the client gets.", "code")
)

// Application exports the numbers of the built-in application. stats is called once for each
// scrape.
func Application(stats func() app.Stats) prometheus.Collector { return application(stats) }

type application func() app.Stats

// Describe implements [prometheus.Collector].
func (a application) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(a, ch) }

// Collect implements [prometheus.Collector].
func (a application) Collect(ch chan<- prometheus.Metric) {
	s := a()
	for event, n := range s.Forbidden {
		ch <- prometheus.MustNewConstMetric(refusals, prometheus.CounterValue, float64(n), event)
	}
	for code, n := range s.RefusedTokens {
		ch <- prometheus.MustNewConstMetric(tokensRefused, prometheus.CounterValue, float64(n), string(code))
	}
}
