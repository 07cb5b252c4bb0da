package engineio

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

const testTick = 10 * time.Millisecond

// onWheel runs a test with a wheel, in a time of its own.
func onWheel(t *testing.T, test func(t *testing.T, w *wheel)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWheel(testTick)
		defer w.stop()
		test(t, w)
	})
}

func TestWheelFiresInTime(t *testing.T) {
	onWheel(t, func(t *testing.T, w *wheel) {
		const timers = 2000
		fired := 0
		start := time.Now()
		for range timers {
			d := time.Duration(rand.Int64N(int64(3 * wheelSlots * testTick))) // up to three turns
			w.set(&timer{fire: func(now time.Time) {
				fired++
				if late := now.Sub(start) - d; late < 0 || late > 2*testTick {
					t.Errorf("set for %v, fired %v later", d, late)
				}
			}}, d)
		}
		time.Sleep(3*wheelSlots*testTick + 2*testTick)
		synctest.Wait()
		if fired != timers || w.count != 0 {
			t.Errorf("%d fired, %d are left", fired, w.count)
		}
	})
}

func TestWheelTimerThatIsCanceledOrSetAgain(t *testing.T) {
	onWheel(t, func(t *testing.T, w *wheel) {
		var fired []string
		note := func(s string) *timer { return &timer{fire: func(time.Time) { fired = append(fired, s) }} }
		a, b, c, d := note("a"), note("b"), note("c"), note("d")
		for _, t := range []*timer{a, b, c, d} { // in one slot
			w.set(t, time.Second)
		}
		w.cancel(b)
		w.cancel(b)
		w.set(c, 2*time.Second)
		w.set(d, 500*time.Millisecond)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(fired) != 3 || fired[0] != "d" || fired[1] != "a" || fired[2] != "c" {
			t.Errorf("fired %v", fired)
		}
		w.cancel(a) // it has fired
		if w.count != 0 {
			t.Errorf("%d are left", w.count)
		}
	})
}

func TestWheelWakesUp(t *testing.T) {
	onWheel(t, func(t *testing.T, w *wheel) {
		for _, idle := range []time.Duration{0, time.Second, time.Hour} {
			time.Sleep(idle)
			start, fired := time.Now(), time.Time{}
			w.set(&timer{fire: func(now time.Time) { fired = now }}, 0)
			time.Sleep(3 * testTick)
			synctest.Wait()
			if late := fired.Sub(start); late < 0 || late > 2*testTick {
				t.Errorf("after %v of rest it fired %v late", idle, late)
			}
		}
	})
}

func TestWheelTimerThatSetsItself(t *testing.T) {
	onWheel(t, func(t *testing.T, w *wheel) {
		fired := 0
		var self timer
		self.fire = func(time.Time) {
			fired++
			w.set(&self, 100*time.Millisecond)
		}
		w.set(&self, 100*time.Millisecond)
		time.Sleep(time.Minute)
		synctest.Wait()
		if fired < 540 || fired > 600 {
			t.Errorf("fired %d times in a minute", fired)
		}
	})
}
