package engineio

import (
	"testing"

	"pgregory.net/rapid"
)

// Each pair of states, and whether one may follow the other.
func TestPollingStates(t *testing.T) {
	want := map[pollingState]string{ // a letter for each state that may follow, in their order
		pollingOpen:      "-u--lcg",
		pollingUpgrading: "o-p-lcg",
		pollingProbed:    "o--Ulcg",
		pollingUpgraded:  "----l--",
		pollingLeaving:   "-----cg",
		pollingClosing:   "------g",
		pollingGone:      "-------",
	}
	for from, follow := range want {
		for to := range pollingGone + 1 {
			state := from
			possible := state.next(to)
			if possible != (follow[to] != '-') || possible && state != to || !possible && state != from {
				t.Errorf("from %d to %d: got %d and %v", from, to, state, possible)
			}
		}
	}
}

// In any order of attempts at most one upgrade succeeds, only after its probe, and a closing or
// closed connection is never opened again.
func TestPollingStateHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, left, upgrades := pollingOpen, false, 0
		for _, to := range rapid.SliceOfN(rapid.IntRange(0, int(pollingGone)), 0, 30).Draw(t, "attempts") {
			before := state
			if !state.next(pollingState(to)) {
				continue
			}
			switch {
			case before >= pollingClosing && state != pollingGone, before == pollingGone:
				t.Fatalf("from %d to %d", before, state)
			case left && state < pollingClosing:
				t.Fatalf("the client has closed, but the state is %d", state)
			case state == pollingUpgraded && before != pollingProbed:
				t.Fatalf("upgraded from %d", before)
			}
			left = left || state == pollingLeaving
			if state == pollingUpgraded {
				upgrades++
			}
		}
		if upgrades > 1 {
			t.Fatalf("got %d upgrades, want at most 1", upgrades)
		}
	})
}
