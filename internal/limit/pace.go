package limit

import "time"

// burst is how many seconds' worth of a rate can be used at once: as long as clients that
// were away for some time take to send what they have kept meanwhile.
const burst = 10

// A clock counts nanoseconds from its beginning.
type clock struct{ begun time.Time }

func newClock() clock { return clock{time.Now()} }

func (c clock) now() int64 { return int64(time.Since(c.begun)) }

// A pace is a rate: how long each unit takes, and how much time can be used in advance. The
// zero value is no limit.
type pace struct {
	unit  float64 // nanoseconds
	ahead int64   // nanoseconds
}

// A due is until when what was used of a pace takes, in nanoseconds of a [clock]. The zero value is that of nothing used.
type due int64

// paced returns a pace of n units in a second, of which a burst can come at once, or
// most units if that is more.
func paced(n, most int) pace {
	if n == 0 {
		return pace{}
	}
	p := pace{unit: float64(time.Second) / float64(n)}
	p.ahead = max(p.cost(n*burst), p.cost(most))
	return p
}

func (p pace) cost(n int) int64 { return int64(float64(n) * p.unit) }

// most returns how many units can come at once.
func (p pace) most() int { return int(float64(p.ahead) / p.unit) }

// take uses n units, or all that can come at once if n is more. It reports whether they
// are within the pace; if not, nothing is used.
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

// charge uses n units more than was taken, whether they are within the pace or not; less
// if n is negative.
func (p pace) charge(d *due, n int) { *d = max(0, *d+due(p.cost(n))) }

// wait returns how long it takes until n units can be taken.
func (p pace) wait(d due, now int64, n int) time.Duration {
	return time.Duration(max(0, int64(d)-now+min(p.cost(n), p.ahead)-p.ahead))
}
