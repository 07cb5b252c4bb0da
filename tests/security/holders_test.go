package security

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// holders are attacks with what a node holds in small parts, or beside what it counts.
var holders = []attack{
	{
		name: "padded events behind a busy handler",
		hold: func(a *assault, conn int) {
			fillHistory(a, conn)
			c := a.joined()
			c.bytes(frames(20, `421["history","h",{"limit":200}]`)) // what follows waits for them
			for range either(3, 8) {
				c.send("42" + padding + `["echo"]`)
				c.send(`42["echo"]` + padding)
			}
			digits := a.joined()
			digits.bytes(frames(20, `421["history","h",{"limit":200}]`))
			digits.send("42" + strings.Repeat("7", len(padding)) + `["echo"]`)
			zeros := a.joined()
			zeros.bytes(frames(20, `421["history","h",{"limit":200}]`))
			zeros.send("45" + strings.Repeat("0", len(padding)) + `1-["echo",{"_placeholder":true,"num":0}]`)
			for range either(1, 4) {
				a.pollingSession("", "", strings.Repeat(`421["history","h",{"limit":200}]`+"\x1e", 20)+`42["echo"]`+padding)
			}
			a.held[conn] = c
		},
		check: func(a *assault) {
			nodetest.Eventually(a.T, "long ids, or long numbers of attachments, are accepted", func() error {
				if n := a.node.Metrics()[`rejoin_connections_closed_total{reason="forced close"}`]; n < float64(2*either(shortAttackers, attackers)) {
					return fmt.Errorf("%v connections were closed", n)
				}
				return nil
			})
		},
	},
	{
		name: "unknown events whose names take five times as much in a quoted form",
		hold: func(a *assault, conn int) {
			c := a.connect(mute, "")
			for range 3 {
				c.send(`421["` + strings.Repeat("\x7f", len(padding)) + `"]`)
			}
			a.held[conn] = c
		},
		work: func(a *assault, conn int) {
			for range a.each {
				if !a.held[conn].send(`421["` + strings.Repeat("\x7f", len(padding)) + `"]`) {
					return
				}
			}
		},
		check: func(a *assault) {
			if n := a.node.Metrics()["rejoin_send_queue_bytes"]; n > 1<<20 {
				a.Errorf("%v bytes are queued for clients that read nothing", n)
			}
			c := a.connect(listens, "")
			defer c.close()
			c.send(`421["` + strings.Repeat("\x7f", 30_000) + `"]`)
			if answer, _ := c.await("431"); len(answer) > 1000 || !strings.Contains(answer, "unknown_event") {
				a.Errorf("an unknown event is answered with %d bytes: %.50q", len(answer), answer)
			}
		},
	},
	{
		name: "half-sent messages that are held back and keep out those of others",
		hold: func(a *assault, conn int) {
			for range either(6, 1) { // together all that may be incomplete
				a.connect(mute, "").bytes("\x81\xff\x00\x00\x00\x00\x00\x0f\x42\x3f\x00\x00\x00\x00" + strings.Repeat("x", 530_000))
			}
		},
		check: func(a *assault) {
			nodetest.Eventually(a.T, "a message of 20 KB is not accepted", func() error {
				c := a.connect(listens, "")
				defer c.close()
				c.send(`421["echo","` + endless[:20_000] + `"]`)
				if _, answered := c.await("431"); !answered {
					return errors.New("its connection is closed")
				}
				return nil
			})
		},
	},
	{
		name: "half-sent messages that go on slowly and keep out those of others",
		hold: func(a *assault, conn int) {
			if long && conn >= 16 {
				return
			}
			for range either(6, 1) { // together all that may be incomplete
				c := a.connect(mute, "")
				c.bytes("\x81\xff\x00\x00\x00\x00\x00\x0f\x42\x3f\x00\x00\x00\x00" + strings.Repeat("x", 530_000))
				a.tasks.Go(func() { // with 5 KB/s, until the node gives it up
					more := time.NewTicker(100 * time.Millisecond)
					defer more.Stop()
					for c.bytes(strings.Repeat("x", 500)) {
						select {
						case <-more.C:
						case <-a.ctx.Done():
							return
						}
					}
				})
			}
		},
		check: func(a *assault) {
			for range either(5, 100) {
				c := a.connect(listens, "")
				c.send(`421["echo","` + endless[:20_000] + `"]`)
				if _, answered := c.await("431"); !answered {
					a.Error("a message of 20 KB is given up")
				}
				c.close()
			}
		},
	},
	{
		name:      "handshakes with large headers of one address",
		variables: []string{"REJOIN_TRUSTED_PROXIES=127.0.0.1"},
		hold: func(a *assault, conn int) {
			for range either(400, 40) { // together all that headers may take
				if c := a.raw(largeHandshake("192.0.2.1", 14_000)); c != nil {
					_, _ = io.Copy(io.Discard, c)
					c.Close()
				}
			}
		},
		check: func(a *assault) {
			c := a.raw(largeHandshake("198.51.100.1", 4000))
			defer c.Close()
			if answer, _ := io.ReadAll(c); !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
				a.Errorf("another address is answered %.100q", answer)
			}
			if n := a.node.Metrics()[`rejoin_limited_total{limit="header_bytes"}`]; n == 0 {
				a.Error("the limit is not reached")
			}
		},
	},
	{
		name:      "polling sessions with long URLs and small attachments",
		variables: []string{"REJOIN_HANDSHAKE_RATE=0"},
		hold: func(a *assault, conn int) {
			url := "&x=" + strings.Repeat("u", either(1700, 1900))
			if conn%2 == 0 {
				url += sixtyKB[:15_000]
			}
			packet := `452-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]` + "\x1eb" + strings.Repeat("AAAA", 2000)
			for i := range either(50, 200) {
				event := `42["join",` + shortRooms(16, fmt.Sprintf("%c%d.", 'a'+conn, i)) + "]\x1e" + packet
				a.pollingSession(url, "", event)
			}
		},
		check: func(a *assault) {
			samples := a.node.Metrics()
			if n := samples["rejoin_received_bytes"]; n > 32<<20 || n < float64(either(50, 500))*4000 {
				a.Errorf("%v bytes are received", n)
			}
		},
	},
	{
		name: "events and acks that are held back while clients read nothing of their replays",
		hold: func(a *assault, conn int) {
			var sessions []string
			own := func(i int) string { return fmt.Sprintf("own %d.%d", conn, i) }
			for i := range either(2, 12) {
				c := a.connect(listens, "")
				c.ask(fmt.Sprintf(`["join",["missed",%q]]`, own(i)))
				if c != nil {
					sessions = append(sessions, fmt.Sprintf(`{"pid":%q}`, c.pid))
				}
				c.close()
			}
			time.Sleep(time.Second) // all have ended
			sender := a.connect(listens, "")
			if conn == 0 {
				sender.ask(`["join","missed"]`)
				for range 20 {
					sender.ask(`["to","missed","x","` + sixtyKB + `"]`)
				}
			}
			time.Sleep(2 * time.Second) // all have missed them
			for i, session := range sessions {
				c := a.connect(mute, session)
				if i%2 == 0 {
					c.send(`42["self","x"]`)
					c.send(`420["echo","` + large + `"]`)
				}
			}
			for i := range sessions {
				sender.ask(fmt.Sprintf(`["to",%q,"x","%s"]`, own(i), large[:min(len(large), 400_000)]))
			}
			sender.close()
		},
	},
}

// padding is white space that JSON allows.
var padding = strings.Repeat("\t", either(300_000, 990_000))

// largeHandshake returns a handshake of an address behind a proxy, with a cookie.
func largeHandshake(addr string, cookie int) string {
	return "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Forwarded-For: " + addr +
		"\r\nCookie: c=" + endless[:cookie] + "\r\n\r\n"
}
