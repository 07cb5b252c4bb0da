package main

import (
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A logger is the node's log, with its level and a metric of the entries that it dropped.
type logger struct {
	*zap.Logger
	level   zap.AtomicLevel
	dropped prometheus.Counter
}

// newLogger returns a logger that writes to w as configured. At the level debug
// it writes all entries.
func newLogger(c config, w io.Writer) logger {
	level, err := zap.ParseAtomicLevel(c.LogLevel)
	if err != nil {
		panic(err) // config's tag allows a level that zap does not know
	}
	form := zap.NewProductionEncoderConfig()
	form.TimeKey = "time"
	form.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	form.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(form)
	if c.LogFormat == "console" {
		form.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		form.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(form)
	}
	dropped := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "rejoin_log_entries_dropped_total",
		Help: "Log entries not written because the same message had been logged too often within a second.",
	})
	core := shortening{zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), level)}
	return logger{zap.New(unlessDebug{sample(core, dropped.Inc), core}), level, dropped}
}
