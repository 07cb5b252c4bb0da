package security

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// A missing room has events that sessions miss: so many, each with a payload of some bytes.
type missingRoom struct {
	name         string
	events, size int
}

// missingRooms returns some rooms with small events.
func missingRooms(name string, n, events, size int) (all []missingRoom) {
	for i := range n {
		all = append(all, missingRoom{fmt.Sprint(name, " ", i), events, size})
	}
	return all
}

// missed has polling sessions join some rooms, each one also a room of its own, and end, and then sends the
// rooms' events. It returns the payloads of CONNECTs with which the sessions are recovered. own returns the
// name of the room of a session.
func (a *assault) missed(sessions int, own func(int) string, rooms ...missingRoom) (payloads []string) {
	names := make([]string, len(rooms))
	for i, room := range rooms {
		names[i] = fmt.Sprintf("%q", room.name)
	}
	r := a.requester()
	r.query = "&recovery=true"
	for i := range sessions {
		_, answer := r.do(http.MethodGet, "", "", "")
		sid := field(answer, "sid")
		r.do(http.MethodPost, sid, "", "40")
		_, answer = r.do(http.MethodGet, sid, "", "")
		payloads = append(payloads, fmt.Sprintf(`{"pid":%q}`, field(answer, "pid")))
		r.do(http.MethodPost, sid, "", fmt.Sprintf(`421["join",[%s,%q]]`, strings.Join(names, ","), own(i)))
		r.do(http.MethodGet, sid, "", "") // its ack
		r.do(http.MethodPost, sid, "", "1")
	}
	c := a.connect(listens, "")
	defer c.close()
	c.ask(`["join",[` + strings.Join(names, ",") + `]]`)
	for _, room := range rooms {
		event := fmt.Sprintf(`["to",%q,"x","%s"]`, room.name, endless[:room.size])
		for range room.events - 1 {
			c.send("42" + event)
		}
		c.ask(event)
	}
	return payloads
}

// recoverSlowly recovers sessions by polling, and takes only the first part of what each has missed. It
// returns the ids of the sessions that the node accepts.
func (a *assault) recoverSlowly(payloads []string) (sids []string) {
	r := a.requester()
	for _, payload := range payloads {
		if r == nil {
			return sids
		}
		r.query = "&recovery=true"
		_, answer := r.do(http.MethodGet, "", "", "")
		sid := field(answer, "sid")
		r.do(http.MethodPost, sid, "", "40"+payload)
		if _, answer = r.do(http.MethodGet, sid, "", ""); strings.HasPrefix(answer, "40") {
			sids = append(sids, sid)
			continue
		}
		r.c.Close()
		r = a.requester()
	}
	return sids
}

// replaysAndHeld are attacks by clients that take their replays slowly.
var replaysAndHeld = []attack{
	{
		name:      "slow replays that use up what recoveries may hold",
		variables: queueBudget(1 << 20),
		hold: func(a *assault, conn int) {
			if conn > 0 {
				return
			}
			own := func(i int) string { return fmt.Sprint("own ", i) }
			var sids []string
			for i := range either(1, 3) { // in all more than the node may hold
				rooms := missingRooms(fmt.Sprint("missed ", i), either(1, 9), either(800, 990), either(50, 200))
				sids = append(sids, a.recoverSlowly(a.missed(either(4, 5), own, rooms...))...)
			}
			a.Logf("%d sessions are recovered slowly, and hold %v bytes", len(sids), a.node.Metrics()["rejoin_replay_bytes"])
		},
		check: func(a *assault) {
			payload := a.missed(1, func(int) string { return "x" }, missingRoom{"small", 150, 100})[0]
			if held := a.node.Metrics()["rejoin_replay_bytes"]; held < float64(either(400<<10, 9<<20)) {
				a.Errorf("%v bytes are held", held)
			}
			if c := a.connect(mute, payload); c == nil {
				a.Error("a client that missed 150 small events is not connected")
			}
			if n := a.node.Metrics()[`rejoin_limited_total{limit="replay_budget"}`]; n == 0 {
				a.Error("no replay gives way")
			}
		},
	},
	{
		name:      "slow replays that use up what joins may hold",
		variables: queueBudget(2 << 20),
		hold: func(a *assault, conn int) {
			if conn > 0 {
				return
			}
			own := func(i int) string { return fmt.Sprint("own ", i) }
			n := either(8, 24)
			sids := a.recoverSlowly(a.missed(n, own, missingRoom{"missed", either(8, 20), 60_000}))
			c := a.connect(listens, "")
			for i := range n {
				c.ask(fmt.Sprintf(`["to",%q,"x",%q]`, own(i), large))
			}
			c.close()
			a.Logf("%d sessions are recovered slowly", len(sids))
		},
		check: func(a *assault) {
			var ended atomic.Bool
			for range 2 {
				a.tasks.Go(func() { // until the joins have ended
					c := a.connect(listens, "")
					for !ended.Load() && c.ask(`["to","busy","x","`+endless[:8000]+`"]`) {
					}
					c.close()
				})
			}
			defer ended.Store(true)
			joins, cut := 60, 0
			for i := range joins {
				c := a.connect(listens, "")
				if !c.ask(`["join","busy"]`) || !c.ask(fmt.Sprintf(`["join","other %d"]`, i)) {
					cut++
				}
				c.close()
			}
			if cut > 0 {
				a.Errorf("%d of %d clients are cut while they join", cut, joins)
			}
		},
	},
	{
		name: "binary events in polling responses that nobody reads",
		hold: func(a *assault, conn int) {
			placeholders := make([]string, 10)
			for i := range placeholders {
				placeholders[i] = fmt.Sprintf(`{"_placeholder":true,"num":%d}`, i)
			}
			event := `4510-["self","x",` + strings.Join(placeholders, ",") + "]" + strings.Repeat("\x1eb"+strings.Repeat("AAAA", 500), 10)
			r := a.requester()
			var sids []string
			for range either(1, 4) {
				sid := r.session("b")
				for range 3 { // 450 KB of attachments
					r.do(http.MethodPost, sid, "", strings.Repeat(event+"\x1e", 9)+event)
				}
				sids = append(sids, sid)
			}
			a.sessions[conn] = strings.Join(sids, ",")
		},
		rounds: 1,
		work: func(a *assault, conn int) {
			nodetest.Eventually(a.T, "the events are not queued", func() error {
				if n := a.node.Metrics()["rejoin_send_queue_bytes"]; n < shortAttackers*450_000 && !long {
					return fmt.Errorf("%v bytes are queued", n)
				}
				return nil
			})
			for sid := range strings.SplitSeq(a.sessions[conn], ",") {
				if c, err := a.dial(false); err == nil {
					_, _ = fmt.Fprintf(c, "GET /socket.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: localhost\r\n\r\n", sid)
				}
			}
		},
		check: func(a *assault) {
			if long { // the budget closes most of them
				if most, err := nodetest.Memory(a.node.Pid(), "VmHWM"); err != nil || most > 200<<20 {
					a.Errorf("the node has had %d MiB, %v", most>>20, err)
				}
				return
			}
			nodetest.Eventually(a.T, "the base64 form is not counted", func() error {
				if n := a.node.Metrics()["rejoin_send_queue_bytes"]; n < shortAttackers*(450_000+600_000) {
					return fmt.Errorf("%v bytes are counted", n)
				}
				return nil
			})
		},
	},
}

// queueBudget returns the variables of a short run with a small budget for queues.
func queueBudget(bytes int) []string {
	if long {
		return nil
	}
	return []string{fmt.Sprint("REJOIN_QUEUE_BUDGET=", bytes)}
}
