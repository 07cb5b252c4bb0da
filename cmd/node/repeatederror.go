package main

import (
	"regexp"
	"time"
)

// The same error is logged again after firstRepeat, then after twice the previous time, up to
// maxRepeat.
const (
	firstRepeat = time.Second
	maxRepeat   = 30 * time.Second
)

// A repeatedError is a recurring error. It is logged when it changes, and otherwise at growing
// intervals.
type repeatedError struct {
	text  string
	last  time.Time // when it was logged
	pause time.Duration
}

// localPort matches the part of an error that differs after a reconnect.
var localPort = regexp.MustCompile(`:\d+->`)

// due reports whether an error must be logged now, and assumes that the caller
// logs it.
func (e *repeatedError) due(err error, now time.Time) bool {
	text := localPort.ReplaceAllString(err.Error(), "->")
	switch {
	case text != e.text:
		e.text, e.pause = text, firstRepeat
	case now.Sub(e.last) < e.pause:
		return false
	default:
		e.pause = min(2*e.pause, maxRepeat)
	}
	e.last = now
	return true
}
