package main

import (
	"regexp"
	"time"
)

// The same complaint is made again after complaintFirst, then after twice as long
// each time, up to complaintMost.
const (
	complaintFirst = time.Second
	complaintMost  = 30 * time.Second
)

// A complaint is an error that comes again and again. The log gets it when it
// changes, and else now and then.
type complaint struct {
	text  string
	made  time.Time
	pause time.Duration
}

// localPort is what differs between errors of the same connection, made anew.
var localPort = regexp.MustCompile(`:\d+->`)

// due reports whether an error is to be logged now, and takes it that it is.
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
