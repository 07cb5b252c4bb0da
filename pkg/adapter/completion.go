package adapter

import (
	"errors"
	"time"
)

// A completion decides until when the copies may be published that follow one which had been published
// before. The clocks of two partitions are never compared: one of them may be wrong, or may have jumped.
// The age of a former copy is measured by the clock of its own partition. The end of the time that is left
// is set by the clock of the partition that lacks a copy, from a moment before the age was measured. So
// two rounds are needed: in the first one the partitions say what they lack, and when that was.
type completion struct {
	window time.Duration // 0: no limit

	fresh  bool           // a copy was published by this call, in any round
	former bool           // a copy had been published before
	age    time.Duration  // of the oldest one of these
	since  map[int]uint64 // when a partition was found to lack its copy, by its clock
	found  bool           // since has grown in this round
}

func (o *Once) window() time.Duration {
	if o == nil {
		return 0
	}
	return o.Window
}

// published notes a copy.
func (c *completion) published(r Receipt) {
	if !r.Repeated {
		c.fresh = true
		return
	}
	c.former, c.age = true, max(c.age, r.Age)
}

// limit returns o for the copy in a partition.
func (c *completion) limit(partition int, o *Once) *Once {
	if c.window == 0 || !c.former {
		return o
	}
	limited := *o
	limited.Until = 1 // which is over, so the partition says whether it lacks the copy
	if since, known := c.since[partition]; known && c.age < c.window {
		limited.Until = since + uint64((c.window - c.age).Milliseconds())
	}
	return &limited
}

// lacks reports whether an error means that a partition has no copy and has not published one, and notes
// when that was.
func (c *completion) lacks(partition int, r Receipt, err error) bool {
	if !errors.Is(err, ErrIncomplete) {
		return false
	}
	if _, known := c.since[partition]; !known {
		if c.since == nil {
			c.since = make(map[int]uint64)
		}
		c.since[partition], c.found = r.Cursor.At.Ms, true
	}
	return true
}

// again reports whether another round may publish the copies that were missing in this one. There are at
// most as many as partitions.
func (c *completion) again() bool {
	found := c.found
	c.found = false
	return found && c.age < c.window
}
