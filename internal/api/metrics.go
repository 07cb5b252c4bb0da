package api

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics() metrics {
	return metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rejoin_api_requests_total",
			Help: "Requests to the HTTP API, by endpoint (protected: any other that needs a key, if it was refused), status and caller (unnamed: a key of REJOIN_API_KEYS; none: no valid key).",
		}, []string{"route", "status", "caller"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rejoin_api_request_seconds",
			Help:    "Time to serve a request to the HTTP API.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"route"}),
	}
}

func (m metrics) observe(route string, status int, caller string, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status), caller).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}
