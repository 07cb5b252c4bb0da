package socketio

import "testing"

// The whole table of a socket's stages: every pair that is not listed leaves the stage as it is.
func TestStageTransitions(t *testing.T) {
	allowed := map[[2]stage]bool{
		{stageConnecting, stageRecovering}: true, {stageConnecting, stageLive}: true, {stageConnecting, stageEnded}: true,
		{stageRecovering, stageConnecting}: true, {stageRecovering, stageReplaying}: true, {stageRecovering, stageEnded}: true,
		{stageReplaying, stageLive}: true, {stageReplaying, stageLeaving}: true,
		{stageLive, stageLeaving}:  true,
		{stageLeaving, stageEnded}: true,
	}
	missteps := 0
	defer func(was func(from, to stage)) { testMisstep = was }(testMisstep)
	testMisstep = func(stage, stage) { missteps++ }
	for from := stageConnecting; from <= stageEnded; from++ {
		for to := stageConnecting; to <= stageEnded; to++ {
			l, want, before := from, from, missteps
			if allowed[[2]stage{from, to}] {
				want = to
			}
			if l.become(to); l != want {
				t.Errorf("%d becomes %d: %d, not %d", from, to, l, want)
			}
			if reported, misstep := missteps > before, want != to && from < stageLeaving; reported != misstep && from != to {
				t.Errorf("%d becomes %d: reported as a misstep: %t", from, to, reported)
			}
		}
	}
}

func TestStagePredicates(t *testing.T) {
	for _, c := range []struct {
		in                                  stage
		connected, served, catchingUp, gone bool
		finished                            stage
	}{
		{in: stageConnecting, finished: stageEnded},
		{in: stageRecovering, catchingUp: true, finished: stageEnded},
		{in: stageReplaying, connected: true, served: true, catchingUp: true, finished: stageLeaving},
		{in: stageLive, connected: true, served: true, finished: stageLeaving},
		{in: stageLeaving, connected: true, gone: true, finished: stageLeaving},
		{in: stageEnded, gone: true, finished: stageEnded},
	} {
		l := c.in
		if l.connected() != c.connected || l.served() != c.served || l.catchingUp() != c.catchingUp || l.gone() != c.gone {
			t.Errorf("%d: connected %t, served %t, catching up %t, gone %t", l, l.connected(), l.served(), l.catchingUp(), l.gone())
		}
		if l.finish(); l != c.finished {
			t.Errorf("%d finishes as %d, not %d", c.in, l, c.finished)
		}
	}
}
