package main

import (
	"regexp"
	"time"
)

// The same complaint is logged again after complaintFirst, then after twice the
// previous time, up to complaintMost.
const (
	complaintFirst = time.Second
	complaintMost  = 30 * time.Second
)

// A complaint is a recurring error. It is logged when it changes, and otherwise
// at growing intervals.
type complaint struct {
	text  string
	made  time.Time
	pause time.Duration
}

// localPort matches the part of an error that differs after a reconnect.
var localPort = regexp.MustCompile(`:\d+->`)

// due reports whether an error must be logged now, and assumes that the caller
// logs it.
func (c *complaint) due(err error, now time.Time) bool {
	text := localPort.ReplaceAllString(err.Error(), "->")
	switch {
	case text != c.text:
		c.text, c.pause = text, complaintFirst
	case now.Sub(c.made) < c.pause:
		return false
	default:
		c.pause = min(2*c.pause, complaintMost)
	}
	c.made = now
	return true
}
