package hooks

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
)

type metrics struct {
	questions *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	attempts  prometheus.Counter
	gauges    []prometheus.Collector
}

func newMetrics() metrics {
	m := metrics{
		questions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rejoin_hook_questions_total",
			Help: "Questions to the backend, by type and outcome.",
		}, []string{"type", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rejoin_hook_question_seconds",
			Help:    "Time of a question to the backend, with all attempts and the wait for its turn.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"type"}),
		attempts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rejoin_hook_attempts_total",
			Help: "Requests sent to the backend.",
		}),
	}
	for _, kind := range []string{typeConnect, typeEvent} { // every label exists from the start
		for _, outcome := range outcomes {
			m.questions.WithLabelValues(kind, string(outcome))
		}
		m.seconds.WithLabelValues(kind)
	}
	return m
}

// watch adds the gauges of a backend.
func (m *metrics) watch(b *Backend) {
	add := func(o prometheus.GaugeOpts, value func() float64) {
		m.gauges = append(m.gauges, prometheus.NewGaugeFunc(o, value))
	}
	add(prometheus.GaugeOpts{Name: "rejoin_hook_in_flight", Help: "Questions to the backend in flight."}, func() float64 { return float64(b.queue.stats().inFlight) })
	add(prometheus.GaugeOpts{Name: "rejoin_hook_waiting", Help: "Questions to the backend that wait for their turn."}, func() float64 { return float64(b.queue.stats().waiting) })
	add(prometheus.GaugeOpts{Name: "rejoin_hook_bytes", Help: "Bytes of the questions to the backend, in flight or waiting."}, func() float64 { return float64(b.queue.stats().bytes) })
	add(prometheus.GaugeOpts{Name: "rejoin_hook_oldest_seconds", Help: "Age of the oldest of these questions."}, func() float64 { return b.queue.stats().oldest.Seconds() })
	add(prometheus.GaugeOpts{Name: "rejoin_hook_breaker_open", Help: "1 while the backend fails and no question is sent, except one per second."}, func() float64 {
		for _, breaker := range b.breakers {
			if breaker.State() != gobreaker.StateClosed {
				return 1
			}
		}
		return 0
	})
}

// Metrics returns the backend's metrics.
func (b *Backend) Metrics() []prometheus.Collector {
	return append([]prometheus.Collector{b.metrics.questions, b.metrics.seconds, b.metrics.attempts}, b.metrics.gauges...)
}

func (m *metrics) observe(kind string, outcome Outcome, took time.Duration) {
	m.questions.WithLabelValues(kind, string(outcome)).Inc()
	m.seconds.WithLabelValues(kind).Observe(took.Seconds())
}
