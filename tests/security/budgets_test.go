package security

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// queueFillers is the number of attackers who fill the send queues, before all others take the rest.
const queueFillers = 5

// allBudgets uses everything up that a node bounds by its memory. One attacker recovers sessions slowly
// after the others have taken the rest, because a replay waits for its client for a short time only.
func allBudgets() attack {
	var others, queued sync.WaitGroup
	others.Add(attackers - 1)
	queued.Add(queueFillers)
	return attack{
		name: "all budgets together",
		// Nothing of what is held ends with a ping during the attack.
		variables: []string{"REJOIN_PING_INTERVAL=60s", "REJOIN_PING_TIMEOUT=60s", "REJOIN_HANDSHAKE_RATE=0", "REJOIN_BACKLOG_TTL=10m"},
		hold: func(a *assault, conn int) {
			if conn > 0 {
				defer others.Done()
				a.fillBudgets(conn, &queued)
				return
			}
			own := func(i int) string { return fmt.Sprint("own ", i) }
			large := a.missed(14, own, missingRooms("many", 9, 990, 4)...)
			medium := a.missed(9, func(i int) string { return own(14 + i) }, missingRoom{"some", 990, 1000})
			small := a.missed(30, func(i int) string { return own(23 + i) }, missingRoom{"few", 104, 10_000})
			others.Wait()
			sids := a.recoverSlowly(slices.Concat(small, medium, large))
			sender := a.connect(listens, "")
			for i := range 14 { // held back, because their receivers are in the middle of a replay
				sender.ask(fmt.Sprintf(`["to",%q,"x","%s"]`, own(i), strings.Repeat("h", 900_000)))
			}
			sender.close()
			a.Logf("%d sessions are recovered slowly", len(sids))
		},
		check: func(a *assault) {
			m := a.node.Metrics()
			most := m["rejoin_send_queue_budget_bytes"]
			for name, is := range map[string][2]float64{
				"send queues": {m["rejoin_send_queue_bytes"], most}, "replays": {m["rejoin_replay_bytes"], most / 2},
				"received events": {m["rejoin_received_bytes"], 36 << 20}, "memberships": {m["rejoin_membership_bytes"], 30 << 20},
				"sessions": {m[`rejoin_connections{transport="polling"}`], 6144},
			} {
				a.Logf("%s: %.0f of %.0f", name, is[0], is[1])
				if is[0] < is[1]*3/4 {
					a.Errorf("%s have %.0f, want nearly %.0f", name, is[0], is[1])
				}
			}
			if n := m[`rejoin_limited_total{limit="header_bytes"}`]; n == 0 {
				a.Error("the limit of headers is not reached")
			}
			a.Logf("heap %.0f MiB, stacks %.0f MiB", m["go_memstats_heap_alloc_bytes"]/(1<<20), m["go_memstats_stack_inuse_bytes"]/(1<<20))
		},
	}
}

// fillBudgets is what each of 29 attackers takes of everything but replays.
func (a *assault) fillBudgets(conn int, queued *sync.WaitGroup) {
	r := a.requester()
	open := func(headers, body string) (sid string) {
		for range 3 {
			_, answer := r.do(http.MethodGet, "", headers, "")
			if sid = field(answer, "sid"); sid != "" {
				r.do(http.MethodPost, sid, "", "40")
				r.do(http.MethodGet, sid, "", "")
				if body != "" {
					r.do(http.MethodPost, sid, "", body)
				}
				return sid
			}
			if r = a.requester(); r == nil { // refused
				return ""
			}
		}
		return ""
	}
	if conn <= queueFillers {
		full := func() bool {
			m := a.node.Metrics()
			return m["rejoin_send_queue_bytes"] > m["rejoin_send_queue_budget_bytes"]-(1<<20)
		}
		for sid, i := "", 0; i < 150 && !full(); i++ {
			if i%7 == 0 {
				sid = open("", "")
			}
			r.do(http.MethodPost, sid, "", `42["self","`+strings.Repeat("q", 100_000)+`"]`)
			time.Sleep(20 * time.Millisecond) // until the next session
		}
		queued.Done()
	}
	queued.Wait() // what is incomplete would keep these out
	for i := range 3 {
		open("", `42["join",`+shortRooms(1000, fmt.Sprintf("%c%d", 'a'+conn, i))+`]`)
	}
	for range 3 { // packets that wait for an attachment
		open("", `452-["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`+"\x1eb"+strings.Repeat("AAAA", 85_000))
	}
	if conn <= 12 { // bodies that have not arrived, each in a buffer of a MiB
		a.raw("POST /socket.io/?EIO=4&transport=polling&sid=" + open("", "") + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n" + strings.Repeat("x", 530_000))
	}
	for range 50 {
		open("Cookie: "+strings.Repeat("c", 13_500)+"\r\n", "")
	}
	for range 145 {
		open("Cookie: "+strings.Repeat("c", 1_700)+"\r\n", "")
	}
}

// TestAllBudgets plays an attack that takes everything together, with which a node must stay within the same
// limits. It has no short form: what one takes is in TestAttacks.
func TestAllBudgets(t *testing.T) {
	if !long {
		t.Skip("only make attack fills all budgets")
	}
	node, err := nodetest.BuildPlain(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	assail(t, allBudgets(), node)
}
