package feed

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestModel plays random histories: publishing calls, subscriptions, generations that are cut
// between copies, overflows of the queue, primaries that change with a hole or a lost tail, new
// histories, clocks that jump, and messages that are forged, undecodable or without a position.
//
// After each step the members of each room have every stored event of the room up to the feed's
// tail, once and in order, or a loss was reported that names the room and had a cause. While the
// feed is that of a former primary, or may be wrong because of a forged message, this is checked
// only after the next catch-up. In the end all events arrive live.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		faults := rapid.IntRange(0, 1<<len(faultActions)-1).Draw(t, "faults")
		space := rapid.IntRange(1, 8).Draw(t, "space")
		script := rapid.SliceOfN(rapid.IntRange(0, 1<<24), 50, 300).Draw(t, "script")
		n := newNode(t, space)
		actions := slices.Clone(usualActions)
		for i, a := range faultActions {
			if faults&(1<<i) != 0 {
				actions = append(actions, a)
			}
		}
		total := 0
		for _, a := range actions {
			total += a.weight
		}
		for _, x := range script {
			x = mix(x)
			at := x % total
			for _, a := range actions {
				if at -= a.weight; at < 0 {
					n.say("%s %d", a.name, x/total)
					a.do(n, x/total)
					break
				}
			}
			n.check()
		}
		n.heal()
	})
}

// mix makes small numbers, which rapid prefers, as different as others.
func mix(x int) int {
	z := uint64(x+1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	return int((z ^ z>>27) >> 16)
}

type action struct {
	weight int
	name   string
	do     func(n *node, x int)
}

var usualActions = []action{
	{14, "publish", (*node).publish},
	{30, "deliver", (*node).deliver},
	{5, "probe", (*node).probe},
	{6, "subscribe", (*node).subscribe},
	{8, "join", (*node).join},
	{1, "unsubscribe", (*node).unsubscribe},
	{10, "begin", (*node).begin},
	{24, "confirm", (*node).confirm},
	{36, "catch up", (*node).catchUp},
	{6, "take", func(n *node, _ int) { n.queued = 0 }},
	{8, "look", (*node).look},
	{2, "search", (*node).search},
	{4, "pass time", func(n *node, x int) { n.pass(time.Duration(x%2000) * time.Millisecond) }},
	{3, "cut", func(n *node, _ int) { n.cut() }},
}

var faultActions = []action{
	{5, "publish undecodable", (*node).publishBad},
	{3, "garble", (*node).garble},
	{3, "forge", (*node).forge},
	{4, "forge slightly", (*node).forgeSlightly},
	{3, "fail over", (*node).failover},
	{8, "publish in a hole", (*node).publishInHole},
	{1, "flush", func(n *node, x int) { n.excused = true; n.world.flush(uint64(x % 3000)) }},
	{1, "jump", func(n *node, x int) { n.world.now += uint64(x%20) * 60_000 }},
	{1, "be silent", func(n *node, x int) { n.pass(life - time.Duration(x%3)*time.Second) }},
}
