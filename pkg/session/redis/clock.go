package redis

import "time"

const (
	fresh  = time.Minute            // how long a server's time is valid
	prompt = 100 * time.Millisecond // slower answers are not used before that
)

// A clock estimates a server's time from the newest answer that arrived promptly. The server read
// its time somewhat before the arrival, so the clock is slow by that much, and never fast.
type clock struct {
	server int64     // in milliseconds
	came   time.Time // arrival by the local monotonic clock
}

func (c *clock) fresh() bool { return !c.came.IsZero() && time.Since(c.came) < fresh }

// learn takes the server's time from the answer to a request of a known time.
func (c *clock) learn(server int64, asked time.Time) {
	now := time.Now()
	if now.Sub(asked) <= prompt || !c.fresh() {
		*c = clock{server: server, came: now}
	}
}

// at returns the server's time at t.
func (c *clock) at(t time.Time) int64 { return c.server + t.Sub(c.came).Milliseconds() }
