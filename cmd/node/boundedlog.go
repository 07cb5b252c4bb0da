package main

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Limits of the log entries that clients can cause: the size of an entry, because an error
// may quote data from a client, and the number of entries.
const (
	maxLogText = 1000 // bytes of one field, other than a stack

	logWindow     = time.Second
	logFirst      = 50  // entries of one message and level in a window that are all written
	logThereafter = 100 // beyond them one of this many is written
)

// sample bounds the number of entries of a core. dropped is called for each that is
// not written.
func sample(core zapcore.Core, dropped func()) zapcore.Core {
	return zapcore.NewSamplerWithOptions(core, logWindow, logFirst, logThereafter,
		zapcore.SamplerHook(func(_ zapcore.Entry, d zapcore.SamplingDecision) {
			if d&zapcore.LogDropped != 0 {
				dropped()
			}
		}))
}

// unlessDebug is a sampled core, except at the level debug: then it is all of that core.
type unlessDebug struct {
	zapcore.Core // sampled
	all          zapcore.Core
}

func (u unlessDebug) With(fields []zapcore.Field) zapcore.Core {
	return unlessDebug{u.Core.With(fields), u.all.With(fields)}
}

func (u unlessDebug) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if u.all.Enabled(zapcore.DebugLevel) {
		return u.all.Check(e, c)
	}
	return u.Core.Check(e, c)
}

// shortening is a core that cuts long texts.
type shortening struct{ zapcore.Core }

func (s shortening) With(fields []zapcore.Field) zapcore.Core {
	return shortening{s.Core.With(shorten(fields))}
}

func (s shortening) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if s.Enabled(e.Level) {
		return c.AddCore(e, s)
	}
	return c
}

func (s shortening) Write(e zapcore.Entry, fields []zapcore.Field) error {
	return s.Core.Write(e, shorten(fields))
}

// shorten returns fields without long texts. It does not change its argument,
// because zap reuses it.
func shorten(fields []zapcore.Field) []zapcore.Field {
	var changed []zapcore.Field
	for i, f := range fields {
		text := f.String
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			text = err.Error()
		}
		if len(text) <= maxLogText || f.Type != zapcore.StringType && f.Type != zapcore.ErrorType {
			continue
		}
		if changed == nil {
			changed = append(changed, fields...)
		}
		changed[i] = zap.String(f.Key, text[:maxLogText]+"…")
	}
	if changed == nil {
		return fields
	}
	return changed
}
