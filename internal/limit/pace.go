package limit

import "time"

// burst is the number of seconds' worth of a rate that can be used in a burst: clients that
// reconnect send buffered events.
const burst = 10

// A clock counts nanoseconds from its beginning.
type clock struct{ begun time.Time }

func newClock() clock { return clock{time.Now()} }

func (c clock) now() int64 { return int64(time.Since(c.begun)) }

// A pace is a rate: the time that each unit takes, and the time that can be used in advance. The
// zero value means no limit.
type pace struct {
	unit  float64 // nanoseconds
	ahead int64   // nanoseconds
}

// A due is the time at which the used units of a pace are available again, in nanoseconds of a
// [clock]. The zero value means no use.
type due int64

// paced returns a pace of n units per second, with a burst of the usual size, or of most units if
// that is more.
func paced(n, maximum int) pace {
	if n == 0 {
		return pace{}
	}
	p := pace{unit: float64(time.Second) / float64(n)}
	p.ahead = max(p.cost(n*burst), p.cost(maximum))
	return p
}

func (p pace) cost(n int) int64 { return int64(float64(n) * p.unit) }

// most returns the number of units in a burst.
func (p pace) maximum() int { return int(float64(p.ahead) / p.unit) }

// take uses n units, or a whole burst if n is more. It reports whether they are within the pace; if
// not, nothing is used.
func (p pace) take(d *due, now int64, n int) bool {
	if p.unit == 0 {
		return true
	}
	after := max(int64(*d), now) + min(p.cost(n), p.ahead)
	if after-now > p.ahead {
		return false
	}
	*d = due(after)
	return true
}

// charge uses n more units, whether they are within the pace or not, or returns units if n is
// negative.
func (p pace) charge(d *due, n int) { *d = max(0, *d+due(p.cost(n))) }

// wait returns the time until n units can be taken.
func (p pace) wait(d due, now int64, n int) time.Duration {
	if p.unit == 0 {
		return 0 // d may be a later now of another goroutine
	}
	return time.Duration(max(0, int64(d)-now+min(p.cost(n), p.ahead)-p.ahead))
}
