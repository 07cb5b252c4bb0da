package security

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// A requester sends polling requests on one TCP connection.
type requester struct {
	c     net.Conn
	from  *bufio.Reader
	query string // of all requests
}

// requester opens a connection; nil if the node does not let it.
func (a *assault) requester() *requester {
	c, err := a.dial(true)
	if err != nil {
		return nil
	}
	return &requester{c: c, from: bufio.NewReader(c)}
}

// begin sends a request of a session, or for a new one.
func (r *requester) begin(method, sid, headers, body string) bool {
	if sid != "" {
		sid = "&sid=" + sid
	}
	_, err := fmt.Fprintf(r.c, "%s /socket.io/?EIO=4&transport=polling%s%s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", method, r.query, sid, headers, len(body), body)
	return err == nil
}

// do returns the answer to a request: nil if the node has refused it, or closed the connection.
func (r *requester) do(method, sid, headers, body string) (*http.Response, string) {
	if r == nil || !r.begin(method, sid, headers, body) {
		return nil, ""
	}
	res, err := http.ReadResponse(r.from, nil)
	if err != nil {
		return nil, ""
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return nil, ""
	}
	return res, string(answer)
}

// session opens a polling session, connects it and joins a room. It returns its id, "" if the node does
// not let it.
func (r *requester) session(room string) string {
	_, answer := r.do(http.MethodGet, "", "", "")
	sid := field(answer, "sid")
	if sid != "" {
		r.do(http.MethodPost, sid, "", "40")
		r.do(http.MethodGet, sid, "", "")
		r.do(http.MethodPost, sid, "", fmt.Sprintf(`42["join",%q]`, room))
	}
	return sid
}

var (
	compressed atomic.Int64 // bytes before it
	pollsBegun atomic.Int64 // in nanoseconds of the Unix time
)

func init() {
	attacks = append(attacks,
		attack{
			name:   "an event that each of many polling sessions compresses",
			rounds: 1,
			hold: func(a *assault, conn int) {
				r := a.requester()
				var sids []string
				for range either(20, 100) {
					sids = append(sids, r.session("g"))
				}
				a.sessions[conn] = strings.Join(sids, ",")
			},
			work: func(a *assault, conn int) {
				if conn == 0 {
					c := a.connect(listens, "")
					c.ask(`["to","g","x","` + large[:100<<10] + `"]`)
					pollsBegun.Store(time.Now().UnixNano())
				}
				r := a.requester()
				for range a.each {
					for sid := range strings.SplitSeq(a.sessions[conn], ",") {
						res, answer := r.do(http.MethodGet, sid, "Accept-Encoding: gzip\r\n", "")
						switch {
						case res == nil:
							r = a.requester()
						case res.Header.Get("Content-Encoding") == "gzip" && len(answer) < 100<<10:
							compressed.Add(100 << 10)
						}
					}
				}
			},
			check: func(a *assault) {
				since := time.Since(time.Unix(0, pollsBegun.Load())).Seconds() + 1 // some begin earlier
				if n := float64(compressed.Load()); n > 1<<20+since*(8<<20) {
					a.Errorf("%v bytes are compressed in %v s", n, since)
				}
			},
		},
		attack{
			name:      "sessions that the node has closed",
			variables: []string{"REJOIN_HANDSHAKE_RATE=0", fmt.Sprint("REJOIN_SESSIONS=", either(50, 0))},
			hold: func(a *assault, conn int) {
				r := a.requester()
				for range either(50, 600) { // 18,000 in all
					_, answer := r.do(http.MethodGet, "", "X: "+kilobyte+"\r\n", "")
					sid := field(answer, "sid")
					if sid == "" {
						r = a.requester()
						continue
					}
					r.do(http.MethodPost, sid, "", "4x") // not a packet, so the node closes the session
					a.sessions[conn] = sid
				}
			},
			check: func(a *assault) {
				samples := a.node.Metrics()
				if n := samples["rejoin_connections_opened_total"]; n > float64(either(50, 6200)) || samples[`rejoin_limited_total{limit="sessions"}`] == 0 {
					a.Errorf("%v sessions were opened", n)
				}
				for _, sid := range a.sessions { // another session can begin when a client has taken the close
					if sid != "" {
						a.requester().do(http.MethodGet, sid, "", "")
					}
				}
				nodetest.Eventually(a.T, "no session can begin", func() error {
					if res, _ := a.requester().do(http.MethodGet, "", "", ""); res == nil {
						return errors.New("refused")
					}
					return nil
				})
			},
		},
		attack{
			name:      "polling requests of 999 KB behind a busy handler",
			variables: []string{fmt.Sprint("REJOIN_RECEIVE_BUDGET=", either(4<<20, 32<<20))},
			hold: func(a *assault, conn int) {
				fillHistory(a, conn)
				nodetest.Eventually(a.T, "the history is not filled", func() error {
					if n := a.node.Metrics()["rejoin_events_in_total"]; n < 250 {
						return fmt.Errorf("%v events", n)
					}
					return nil
				})
				busy := strings.Repeat(`421["history","h",{"limit":200}]`+"\x1e", 40)
				for range either(5, 19) { // the node has space for 768 connections
					r := a.requester()
					sid := r.session("h")
					if sid == "" {
						continue
					}
					r.do(http.MethodPost, sid, "", busy+`42["x","`+large[:8200]+`"]`+"\x1e"+`42["x"]`)
					r.begin(http.MethodPost, sid, "", `42["x","`+strings.Repeat("x", 999_000)+`"]`)
				}
			},
			check: func(a *assault) {
				if n := a.node.Metrics()["rejoin_received_bytes"]; n > float64(either(6<<20, 48<<20)) {
					a.Errorf("%v bytes are held", n)
				}
			},
		},
	)
}
