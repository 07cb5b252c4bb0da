package redis

import "time"

const (
	fresh  = time.Minute            // how long a server's time is believed
	prompt = 100 * time.Millisecond // an answer that takes longer is not needed before that
)

// A clock knows a server's time: the newest answer that came promptly. The
// server gave it some time before it came, so the clock is slow by as much, and
// never fast.
type clock struct {
	server int64     // in milliseconds
	came   time.Time // here, by the clock that does not jump
}

func (c *clock) fresh() bool { return !c.came.IsZero() && time.Since(c.came) < fresh }

// learn takes the server's time from an answer to what was asked at a time.
func (c *clock) learn(server int64, asked time.Time) {
	now := time.Now()
	if now.Sub(asked) <= prompt || !c.fresh() {
		*c = clock{server: server, came: now}
	}
}

// at returns what the server's time was, or will be.
func (c *clock) at(t time.Time) int64 { return c.server + t.Sub(c.came).Milliseconds() }
