package security

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

const bodiesKey = "a-key-of-a-greedy-backend"

// manyNamespaces is the list of as many namespaces as a connection may have.
var manyNamespaces = func() string {
	names := "/"
	for i := range 15 {
		names += fmt.Sprintf(",/n%d", i)
	}
	return names
}()

// inEach returns packets for each namespace, for one polling request.
func inEach(packet, rest string) string {
	var all []string
	for name := range strings.SplitSeq(manyNamespaces, ",") {
		if name == "/" {
			name = ""
		} else {
			name += ","
		}
		all = append(all, packet+name+rest)
	}
	return strings.Join(all, "\x1e")
}

// toInternal opens a connection to the internal port that reads nothing.
func (a *assault) toInternal(text string) {
	c, err := net.Dial("tcp", a.node.Internal)
	if err != nil {
		return
	}
	context.AfterFunc(a.ctx, func() { c.Close() })
	a.tasks.Go(func() { _, _ = c.Write([]byte(text)) }) // ends with the connection
}

// waitingAttacks are attacks with what waits: sockets of many namespaces, CONNECTs, and calls and answers
// on the internal port.
var waitingAttacks = []attack{
	{
		name:      "polling sessions in 16 namespaces and 16 rooms in each",
		variables: []string{"REJOIN_NAMESPACES=" + manyNamespaces},
		hold: func(a *assault, conn int) {
			r := a.requester()
			for range either(5, 120) {
				_, answer := r.do(http.MethodGet, "", "", "")
				sid := field(answer, "sid")
				if sid == "" {
					r = a.requester()
					continue
				}
				r.do(http.MethodPost, sid, "", inEach("40", ""))
				r.do(http.MethodGet, sid, "", "")
				r.do(http.MethodPost, sid, "", inEach("42", `["join",`+shortRooms(16, fmt.Sprint(conn, "x"))+`]`))
			}
		},
		check: func(a *assault) {
			if n := a.node.Metrics()["rejoin_membership_bytes"]; n > float64(90<<20) {
				a.Errorf("%v bytes of memberships", n)
			}
		},
	},
	{
		name:      "CONNECTs with 60 KB whose tokens wait for their turn",
		variables: []string{"REJOIN_JWT_SECRET=" + jwtSecret, "REJOIN_JWT_PUBLIC_KEY=" + slowKey()},
		hold: func(a *assault, conn int) {
			r := a.requester()
			var sids []string
			for range either(5, 150) {
				_, answer := r.do(http.MethodGet, "", "", "")
				if sid := field(answer, "sid"); sid != "" {
					sids = append(sids, sid)
				} else {
					r = a.requester()
				}
				time.Sleep(15 * time.Millisecond) // within REJOIN_HANDSHAKE_RATE
			}
			for _, sid := range sids {
				if res, _ := r.do(http.MethodPost, sid, "", `40{"token":"`+slowToken+`","x":"`+sixtyKB+`"}`); res == nil {
					r = a.requester()
				}
			}
		},
	},
	{
		name:      "API calls of 1 MiB with half a million arguments",
		variables: []string{"REJOIN_API_KEYS=" + bodiesKey},
		hold: func(a *assault, _ int) {
			body := `{"everyone":true,"event":"x","args":[` + strings.Repeat("1,", 520_000) + `1]}`
			a.line.sent.Add(int64(len(body)))
			a.toInternal(fmt.Sprintf("POST /api/v1/emit HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", bodiesKey, len(body), body))
		},
		check: func(a *assault) { // they have been refused
			nodetest.Eventually(a.T, "the calls are not answered", func() error {
				if n := a.node.Metrics()[`rejoin_api_requests_total{caller="unnamed",route="emit",status="400"}`]; n < 1 {
					return fmt.Errorf("%v calls", n)
				}
				return nil
			})
		},
	},
	{
		name: "metrics that nobody reads",
		hold: func(a *assault, _ int) {
			text := strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 2000)
			a.line.sent.Add(int64(5 * len(text)))
			for range 5 { // in a long run more than the internal port has space for
				a.toInternal(text)
			}
			time.Sleep(time.Duration(either(0, 4)) * time.Second) // connections can be closed once nobody has read for a second
		},
		check: func(a *assault) {
			nodetest.Eventually(a.T, "/healthz is not answered", func() error {
				res, err := nodetest.HTTP.Get("http://" + a.node.Internal + "/healthz")
				if err == nil {
					res.Body.Close()
				}
				return err
			})
		},
	},
}
