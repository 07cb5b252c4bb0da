package security

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// Texts that attacks are made of.
var (
	longName  = strings.Repeat("n", 190) // a room's, or a namespace's, that is permitted
	endless   = strings.Repeat("n", 100<<10)
	kilobyte  = strings.Repeat("x", 1<<10)
	large     = strings.Repeat("x", either(100<<10, 900<<10))
	sixtyKB   = strings.Repeat("x", 60<<10)
	echo100KB = `420["echo","` + endless + `"]`
	// manyArguments are nearly as many arguments as an event may have.
	manyArguments = strings.Repeat(",1", 1000)
	emptyPing     = "\x89\x80\x00\x00\x00\x00" // a WebSocket's, masked with zeros
)

// either returns what a short run has, or a long one.
func either(inShort, inLong int) int {
	if long {
		return inLong
	}
	return inShort
}

// frames returns a short text in as many WebSocket frames, masked with zeros, for one write.
func frames(n int, text string) string {
	return strings.Repeat("\x81"+string([]byte{0x80 | byte(len(text)), 0, 0, 0, 0})+text, n)
}

// rooms returns the list of rooms of a join, of which each has the longest name.
func roomList(n int, of string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(`"%s %s %d"`, longName[:180], of, i)
	}
	return "[" + strings.Join(all, ",") + "]"
}

// shortRooms returns the list of rooms of a join, of which each has a short name.
func shortRooms(n int, of string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = strconv.Quote(of + strconv.FormatInt(int64(i), 36))
	}
	return "[" + strings.Join(all, ",") + "]"
}

// fill makes a client that reads nothing have something queued: more than the kernels take,
// and less than the node allows.
func (c *hostile) fill() {
	c.a.kernel.Do(func() {
		first := c.a.connect(mute, "")
		for seen := 0; seen < 2 && c.a.ctx.Err() == nil; c.a.fills++ {
			first.send(echo100KB)
			seen++
			if c.a.node.Metrics()["rejoin_send_queue_bytes"] < 64<<10 {
				seen = 0
			}
		}
		first.close()
	})
	for range c.a.fills {
		c.send(echo100KB)
	}
}

// slowToken is a token with a forged signature for a key of the curve P-521.
var slowToken = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES512"}`)) + ".e30." +
	base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0, 17}, 66))

// slowKey returns a public key of that curve.
func slowKey() string {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// pollingSession opens a session with a query and some headers, connects it and sends an event.
func (a *assault) pollingSession(query, headers, event string) {
	c, err := a.dial(true)
	if err != nil {
		return
	}
	defer c.Close()
	from := bufio.NewReader(c)
	// do returns the answer to a request, "" if the node refuses it: then the attacker has failed.
	do := func(method, query, headers, body string) string {
		_, _ = fmt.Fprintf(c, "%s /socket.io/?EIO=4&transport=polling%s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", method, query, headers, len(body), body)
		res, err := http.ReadResponse(from, nil)
		if err != nil {
			return ""
		}
		defer res.Body.Close()
		answer, _ := io.ReadAll(res.Body)
		return string(answer)
	}
	sid := field(do(http.MethodGet, query, headers, ""), "sid")
	if sid == "" {
		return
	}
	do(http.MethodPost, "&sid="+sid, "", "40")
	do(http.MethodGet, "&sid="+sid, "", "")
	if event != "" {
		do(http.MethodPost, "&sid="+sid, "", event)
	}
}

// openPolling opens a polling session that does not connect, and returns its id.
func (a *assault) openPolling() string {
	c := a.raw("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	if c == nil {
		return ""
	}
	defer c.Close()
	answer, _ := io.ReadAll(c) // an attacker that the node refuses has failed
	return field(string(answer), "sid")
}

func incompleteIsBounded(a *assault) {
	nodetest.Eventually(a.T, "nothing has been closed, or too much is held", func() error {
		samples := a.node.Metrics()
		if held, closed := samples["rejoin_received_bytes"], samples[`rejoin_limited_total{limit="receive_budget"}`]; held > 16<<20 || closed == 0 {
			return fmt.Errorf("%v bytes are held, %v connections were closed", held, closed)
		}
		return nil
	})
}

var attacks = []attack{
	{
		name: "private to ids of 900 KB",
		hold: func(a *assault, _ int) {
			c := a.connect(reads, "")
			for range either(5, 10) {
				c.send(`42["private","` + large + `","x"]`)
			}
		},
	},
	{
		name:   "private to made-up ids",
		rounds: 300,
		work: func(a *assault, conn int) {
			c := a.connect(reads, "")
			for i := range a.each {
				if !c.send(fmt.Sprintf(`42["private","%s %d %d",%q]`, longName[:180], conn, i, "x")) {
					c = a.connect(reads, "")
				}
			}
		},
	},
	{
		name:   "events to 999 rooms",
		rounds: 3,
		hold: func(a *assault, conn int) {
			c := a.connect(listens, "")
			c.ask(`["join",` + shortRooms(999, "r") + `]`)
			a.held[conn] = c
			if conn == 0 {
				for range either(5, 40) {
					c.ask(`["to",` + shortRooms(999, "r") + `,"x","` + large[:26_000] + `"]`)
				}
			}
		},
		work: func(a *assault, conn int) {
			for i := range a.each {
				if c := a.held[conn]; !c.ask(`["to",` + shortRooms(999, "r") + `,"x","` + large[:i%2*25_000+900] + `"]`) {
					return
				}
			}
		},
	},
	{
		name:   "events to 1,000 made-up rooms",
		rounds: 5,
		work: func(a *assault, conn int) {
			c := a.connect(listens, "")
			for i := range a.each {
				if !c.ask(`["to",` + shortRooms(1000, fmt.Sprintf("%c%d.", 'a'+conn, i)) + `,"x"]`) {
					c = a.connect(listens, "")
				}
			}
		},
	},
	{
		name:      "joins of 1,000 new rooms with short names",
		rounds:    20,
		variables: []string{"REJOIN_TRUSTED_PROXIES=127.0.0.1"},
		proxied:   true,
		work: func(a *assault, conn int) {
			for i := range a.each {
				c := a.connect(listens, "")
				c.ask(`["join",` + shortRooms(1000, fmt.Sprintf("%c%d.", 'a'+conn, i)) + `]`)
				c.close()
			}
		},
	},
	{
		name:      "payloads of CONNECTs in 16 namespaces",
		variables: []string{"REJOIN_NAMESPACES=/,/1,/2,/3,/4,/5,/6,/7,/8,/9,/10,/11,/12,/13,/14,/15"},
		hold: func(a *assault, _ int) {
			c := a.connect(reads, `{"x":"`+sixtyKB+`"}`)
			for i := 1; i < 16; i++ {
				c.send(fmt.Sprintf(`40/%d,{"x":%q}`, i, []string{sixtyKB, large}[i%2]))
			}
		},
		work: func(a *assault, _ int) {
			c := a.connect(reads, "")
			for range a.each {
				if !c.send(`40/1,{"x":"`+sixtyKB+`"}`) || !c.send("41/1,") {
					c = a.connect(reads, "")
				}
			}
		},
		rounds: 10,
	},
	{
		name: "packets that await an attachment",
		hold: func(a *assault, _ int) { a.connect(reads, "").attach(9) },
	},
	{
		name:      "events with ten attachments behind a busy handler",
		variables: []string{fmt.Sprint("REJOIN_RECEIVE_BUDGET=", either(4<<20, 32<<20))},
		hold: func(a *assault, conn int) {
			fillHistory(a, conn)
			for range either(shortAttackers, attackers) { // one after the other: each has packets that are complete
				if conn == 0 {
					busyWithAttachments(a)
				}
			}
		},
		work: func(a *assault, _ int) {
			for range a.each {
				busyWithAttachments(a)
			}
		},
		rounds: 1,
		check: func(a *assault) {
			nodetest.Eventually(a.T, "the budget is not kept", func() error {
				samples := a.node.Metrics()
				if n := samples["rejoin_received_bytes"]; n > float64(either(4<<20, 32<<20)) || samples[`rejoin_limited_total{limit="receive_budget"}`] == 0 {
					return fmt.Errorf("%v bytes are held", n)
				}
				return nil
			})
		},
	},
	{
		name:   "names of namespaces",
		rounds: 50,
		work: func(a *assault, conn int) {
			c := a.connect(reads, "")
			for i := range a.each {
				name := fmt.Sprintf("/%s%d.%d", longName[:150], conn, i)
				if i%10 == 0 {
					name = "/" + endless
				}
				if !c.send("40" + name + ",{}") {
					c = a.connect(reads, "")
				}
			}
		},
	},
	{
		name:      "sessions that never connect",
		variables: []string{"REJOIN_HANDSHAKE_RATE=0"},
		hold: func(a *assault, _ int) {
			c, err := a.dial(true)
			if err != nil {
				return
			}
			buffer := make([]byte, 4<<10)
			for range either(100, 400) { // 12,000 in all
				if _, err := c.Write([]byte("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nX: " + kilobyte + "\r\n\r\n")); err != nil {
					return
				}
				if _, err := c.Read(buffer); err != nil {
					return
				}
			}
		},
		check: func(a *assault) {
			if n := a.node.Metrics()[`rejoin_connections{transport="polling"}`]; n > 5010 {
				a.Errorf("%v sessions are open", n)
			}
		},
	},
	{
		name:      "polling sessions in 16 rooms with long names",
		variables: []string{"REJOIN_HANDSHAKE_RATE=0"},
		hold: func(a *assault, conn int) {
			for i := range either(50, 200) { // 6,000 in all, which REJOIN_SESSIONS just allows
				a.pollingSession("", "", `42["join",`+roomList(16, fmt.Sprintf("%c%d", 'a'+conn, i))+`]`)
			}
		},
		check: func(a *assault) {
			if n := a.node.Metrics()["rejoin_membership_bytes"]; n > 80<<20 {
				a.Errorf("memberships take %v bytes", n)
			}
		},
	},
	{
		name:      "polling sessions with large headers",
		variables: []string{"REJOIN_HANDSHAKE_RATE=0"},
		hold: func(a *assault, _ int) {
			cookie := "Cookie: " + strings.Repeat("c", 15_000) + "\r\n"
			for range either(500, 300) { // 9,000 in all
				a.pollingSession("", cookie, "")
			}
		},
		check: func(a *assault) {
			if n := a.node.Metrics()[`rejoin_connections{transport="polling"}`]; n > 1400 {
				a.Errorf("%v sessions are open", n)
			}
		},
	},
	{
		name:   "entering and leaving on one connection after another",
		rounds: 20,
		work: func(a *assault, _ int) {
			for range a.each {
				c := a.connect(listens, "")
				if c == nil {
					return
				}
				for connected := true; connected && c.bytes(frames(1, "41")+frames(1, "40")); { // until the node closes it
					_, connected = c.await("40")
				}
			}
		},
	},
	{
		name:      "forged tokens whose signatures are slow to verify",
		variables: []string{"REJOIN_JWT_SECRET=" + jwtSecret, "REJOIN_JWT_PUBLIC_KEY=" + slowKey()},
		rounds:    20,
		work: func(a *assault, _ int) {
			for range a.each {
				c := a.open(reads)
				for range 5 { // as many as a connection may send within its burst
					if !c.send(`40{"token":"`+slowToken+`"}`) || !c.refused() {
						break
					}
				}
				c.close()
			}
		},
	},
	{
		name:      "sessions whose handshakes have many headers",
		variables: []string{"REJOIN_HANDSHAKE_RATE=0"},
		hold: func(a *assault, _ int) {
			tiny := new(strings.Builder)
			for i := range 2000 { // each of four or five bytes
				fmt.Fprintf(tiny, "%s:\r\n", strconv.FormatInt(int64(i), 36))
			}
			for _, headers := range []int{2000, 95} {
				head := strings.Join(strings.SplitAfter(tiny.String(), "\n")[:headers], "")
				for range either(20, 150) {
					c := a.raw("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n" + head + "Connection: close\r\n\r\n")
					if c == nil {
						return
					}
					_, _ = io.Copy(io.Discard, c) // a connection that the node closes has failed
					c.Close()
				}
			}
		},
		check: func(a *assault) {
			conns := either(shortAttackers, attackers)
			if n := a.node.Metrics()[`rejoin_connections{transport="polling"}`]; n > float64(conns*either(20, 150)) {
				a.Errorf("%v sessions are open", n)
			}
		},
	},
	{
		name: "half-sent bodies",
		hold: func(a *assault, _ int) {
			for range either(20, 100) { // the attackers need descriptors, too
				a.raw("POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n4")
			}
		},
		check: func(a *assault) {
			samples := a.node.Metrics()
			if n, most := samples["process_open_fds"], samples["process_max_fds"]; n > most*3/4+100 {
				a.Errorf("%v descriptors are open of %v", n, most)
			}
		},
	},
	{
		name: "incomplete polling requests of 990 KB",
		hold: func(a *assault, _ int) {
			for range 20 {
				sid := a.openPolling()
				a.raw("POST /socket.io/?EIO=4&transport=polling&sid=" + sid + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n" + strings.Repeat("x", 990_000))
			}
		},
		check: incompleteIsBounded,
	},
	{
		name: "incomplete messages of 990 KB",
		hold: func(a *assault, _ int) {
			for range 20 {
				a.connect(mute, "").bytes("\x81\xff\x00\x00\x00\x00\x00\x0f\x42\x3f\x00\x00\x00\x00" + strings.Repeat("x", 990_000))
			}
		},
		check: incompleteIsBounded,
	},
	{
		name:   "history and members without an ack",
		rounds: 50,
		hold:   fillHistory,
		work: func(a *assault, _ int) {
			c := a.joined()
			for range a.each {
				if !c.send(`42["history","h",{"limit":200}]`) || !c.send(`42["members","h"]`) {
					c = a.joined()
				}
			}
		},
	},
	{
		name:   "history with an ack",
		rounds: 2,
		hold:   fillHistory,
		work: func(a *assault, _ int) {
			c := a.joined()
			for range a.each {
				if !c.send(`421["history","h",{"limit":200}]`) {
					c = a.joined()
				}
			}
		},
	},
	{
		name:   "queued reads of closed sockets",
		rounds: 2,
		hold:   fillHistory,
		work: func(a *assault, _ int) {
			for range a.each {
				c := a.joined()
				c.bytes(frames(300, `421["history","h",{"limit":200}]`))
				c.close()
			}
		},
	},
	{
		name:      "1,000 short rooms of each of many connections",
		variables: []string{fmt.Sprint("REJOIN_MEMBERSHIP_BUDGET=", either(4<<20, 64<<20))},
		hold: func(a *assault, conn int) {
			for i := range 10 {
				names := make([]string, 1000)
				for j := range names {
					names[j] = strconv.Quote(strconv.FormatInt(int64((conn*10+i)*1000+j), 36))
				}
				c := a.connect(listens, "")
				c.ask(`["join",[` + strings.Join(names, ",") + `]]`)
				if c != nil && i%2 == 1 { // recovered below, in place of others
					c.close()
					a.connect(reads, fmt.Sprintf(`{"pid":%q}`, c.pid))
				}
			}
		},
		check: func(a *assault) {
			samples, budget := a.node.Metrics(), either(4<<20, 64<<20)
			if n := samples["rejoin_membership_bytes"]; n > float64(budget+budget/8) || // recoveries have an eighth more
				samples[`rejoin_limited_total{limit="membership_budget"}`] == 0 {
				a.Errorf("memberships take %v", n)
			}
			c := a.connect(listens, "")
			c.send(`425["join",["a","b"]]`)
			if m, _ := c.await("435"); !strings.HasPrefix(m, `435[{"ok":true`) {
				a.Errorf("another client's join is acked %q", m)
			}
		},
	},
	{
		name:   "join and leave with 990 long rooms",
		rounds: 5,
		hold:   manyRooms,
		work: func(a *assault, conn int) {
			for range a.each {
				if c := a.held[conn]; !c.ask(`["join","x"]`) || !c.ask(`["leave","x"]`) {
					manyRooms(a, conn)
				}
			}
		},
	},
	{
		name:   "join and leave of the first and the last of 990 long rooms",
		rounds: 5,
		hold:   manyRooms,
		work: func(a *assault, conn int) {
			for range a.each {
				if c := a.held[conn]; !c.ask(`["join",["!","~"]]`) || !c.ask(`["leave",["!","~"]]`) {
					manyRooms(a, conn)
				}
			}
		},
	},
	{
		name:   "join and leave of two rooms, without acks",
		rounds: 500,
		work: func(a *assault, conn int) {
			c := a.connect(reads, "")
			for range a.each {
				if !c.bytes(frames(1, `42["join",["b","c"]]`)) || !c.bytes(frames(1, `42["leave",["b","c"]]`)) {
					c = a.connect(reads, "")
				}
			}
		},
	},
	{
		name:   "recoveries of sessions with 990 long rooms",
		rounds: 5,
		hold:   manyRooms,
		work: func(a *assault, conn int) {
			c := a.held[conn]
			c.send(`42["self","x"]`)
			m, _ := c.await(`42["x"`)
			_, offset, _ := strings.Cut(m, `,"`)
			payload := fmt.Sprintf(`{"pid":%q,"offset":%q}`, c.pid, strings.TrimSuffix(offset, `"]`))
			c.close()
			for range a.each {
				a.connect(listens, payload).close() // most are refused
			}
		},
	},
	{
		name:   "recoveries of a full backlog",
		rounds: 15,
		hold:   missHistory,
		work: func(a *assault, conn int) {
			for range a.each {
				a.connect(reads, a.sessions[conn]).close()
			}
		},
	},
	{
		name:   "concurrent recoveries of a session",
		rounds: 2,
		hold:   missHistory,
		work: func(a *assault, conn int) {
			for range a.each {
				var all []*hostile
				for range 20 {
					all = append(all, a.open(mute))
				}
				var entering sync.WaitGroup
				for _, c := range all {
					entering.Go(func() {
						c.enter(mute, a.sessions[conn])
						c.close()
					})
				}
				entering.Wait()
			}
		},
	},
	{
		name:   "made-up private ids",
		rounds: 40,
		work: func(a *assault, conn int) {
			for i := range a.each {
				c := a.connect(reads, fmt.Sprintf(`{"pid":"%020d","offset":"made up %d"}`, conn*1_000_000+i, i))
				c.close()
			}
		},
	},
	{
		name:   "long names in the log",
		rounds: 4,
		work: func(a *assault, _ int) {
			c := a.connect(reads, "")
			for i := range a.each {
				ok := c.send(`42["` + large + `"]`)
				if i%2 == 1 {
					ok = c.send(`42["join",{"`+large+`":1}]`) && c.send("42"+large) // the last one closes it
				}
				if !ok {
					c = a.connect(reads, "")
				}
			}
		},
	},
	{
		name: "pings of a client that reads nothing",
		hold: func(a *assault, conn int) {
			if conn >= either(1, attackers) {
				return
			}
			c := a.connect(mute, "")
			c.fill()
			pings := strings.Repeat(emptyPing, 1000)
			for range either(20, 150) {
				c.bytes(pings)
			}
		},
		work: func(a *assault, _ int) {
			c := a.connect(mute, "")
			for range a.each {
				if !c.bytes(strings.Repeat(emptyPing, 100)) {
					c = a.connect(mute, "")
				}
			}
		},
		rounds: 10,
	},
	{
		name:      "acks of a client that reads nothing",
		variables: []string{"REJOIN_PING_TIMEOUT=5s"},
		hold: func(a *assault, conn int) {
			if conn >= either(1, attackers) {
				return
			}
			c := a.connect(mute, "")
			c.fill()
			echoes := frames(1000, `420["echo"]`)
			for range either(9, 20) {
				if !c.bytes(echoes) {
					return
				}
			}
		},
		check: func(a *assault) {
			nodetest.Eventually(a.T, "they are not cut", func() error {
				samples := a.node.Metrics()
				if n := samples["rejoin_slow_clients_total"] + samples[`rejoin_limited_total{limit="read_progress"}`]; n < float64(either(1, attackers)) {
					return fmt.Errorf("%v are cut", n)
				}
				return nil
			})
		},
	},
	{
		name:      "tokens with 100 patterns for 1,000 rooms",
		variables: []string{"REJOIN_JWT_SECRET=" + jwtSecret},
		rounds:    4,
		hold:      manyRooms,
		work: func(a *assault, conn int) {
			tokens := make([]string, 2) // each says something else of rooms
			for i := range tokens {
				patterns := make([]string, 100)
				for j := range patterns {
					patterns[j] = fmt.Sprintf("*-%d-%d*-%d*", conn, i, j)
				}
				patterns[99] = "*"
				tokens[i] = tokenFor("eve", object{"join": patterns, "private": true})
			}
			c := a.held[conn]
			for i := range a.each {
				if !c.ask(fmt.Sprintf(`["token",%q]`, tokens[i%2])) {
					return
				}
			}
		},
	},
	{
		name: "events with many arguments",
		hold: func(a *assault, conn int) {
			fillHistory(a, conn)
			if conn == 0 {
				c := a.connect(listens, "")
				c.ask(`["join","h"]`)
				for range 130 { // a page of them
					c.ask(`["to","h","x"` + manyArguments + `]`)
				}
				c.close()
			}
			c := a.joined()
			c.bytes(frames(40, `421["history","h",{"limit":200}]`)) // what follows waits for them
			for range 2 {
				c.send(`42["x"` + strings.Repeat(",1", len(large)/2) + `]`)
			}
		},
		work: func(a *assault, conn int) {
			c := a.joined()
			for i := range a.each {
				text := `421["echo"` + manyArguments + `]`
				if i%10 == 0 {
					text = `421["history","h",{"limit":200}]`
				}
				if !c.send(text) {
					c = a.joined()
				}
			}
		},
		rounds: 20,
		check: func(a *assault) {
			if n := a.node.Metrics()[`rejoin_limited_total{limit="event_arguments"}`]; n != float64(either(shortAttackers, attackers)) {
				a.Errorf("%v connections were closed", n)
			}
		},
	},
	{
		name: "history of binary events",
		hold: func(a *assault, conn int) {
			c := a.connect(listens, "")
			room := fmt.Sprint("binary ", conn)
			c.ask(fmt.Sprintf(`["join",%q]`, room))
			for range 12 {
				c.send(fmt.Sprintf(`451-["to",%q,"x",{"_placeholder":true,"num":0}]`, room))
				c.binary([]byte{1})
			}
			for range 5 {
				c.send(fmt.Sprintf(`427["history",%q,{"limit":200}]`, room))
				if m, ok := c.await("46"); !ok || !strings.HasPrefix(m, "4610-7[") {
					if a.ctx.Err() == nil {
						a.Errorf("history is answered %.100q", m)
					}
					return
				}
			}
		},
	},
}

// attach sends an event that has ten attachments, and so many of them.
func (c *hostile) attach(attachments int) bool {
	placeholders := make([]string, 10)
	for i := range placeholders {
		placeholders[i] = fmt.Sprintf(`{"_placeholder":true,"num":%d}`, i)
	}
	ok := c.send(`4510-["x",` + strings.Join(placeholders, ",") + "]")
	for range attachments {
		ok = ok && c.binary([]byte(large))
	}
	return ok
}

// busyWithAttachments sends two events with ten attachments, which wait for reads.
func busyWithAttachments(a *assault) {
	c := a.joined()
	c.bytes(frames(20, `421["history","h",{"limit":200}]`)) // few enough to be read on
	if c.attach(10) {
		c.attach(10)
	}
}

// ask sends an event of the built-in application, and waits for its ack.
func (c *hostile) ask(event string) bool {
	if !c.send("425" + event) {
		return false
	}
	_, ok := c.await("435")
	return ok
}

// refused waits until CONNECT is answered with an error.
func (c *hostile) refused() bool {
	for {
		_, m, err := c.ws.ReadMessage()
		if err != nil {
			return false
		}
		if bytes.HasPrefix(m, []byte("44")) {
			return true
		}
	}
}

// joined connects and joins the room h.
func (a *assault) joined() *hostile {
	c := a.connect(reads, "")
	c.send(`42["join","h"]`)
	return c
}

// manyRooms connects and joins nearly as many rooms as a socket may, with the longest names.
func manyRooms(a *assault, conn int) {
	c := a.connect(listens, fmt.Sprintf(`{"token":%q}`, tokenFor("eve", object{"join": []string{"*"}})))
	c.ask(`["join",` + roomList(either(100, 990), fmt.Sprint(conn)) + `]`)
	a.held[conn] = c
}

// fillHistory sends 250 events of 1 KB to the room h.
func fillHistory(a *assault, conn int) {
	if conn != 0 {
		return
	}
	c := a.connect(listens, "")
	c.ask(`["join","h"]`)
	for range 250 {
		c.ask(`["to","h","x","` + kilobyte + `"]`)
	}
	c.close()
}

// missHistory has each attacker miss what fillHistory sends.
func missHistory(a *assault, conn int) {
	if conn != 0 {
		return
	}
	var all []*hostile
	for i := range either(shortAttackers, attackers) {
		c := a.connect(listens, "")
		c.ask(`["join","h"]`)
		a.sessions[i] = fmt.Sprintf(`{"pid":%q}`, c.pid)
		all = append(all, c)
	}
	for _, c := range all {
		c.close()
	}
	fillHistory(a, 0)
}

// TestAttacks plays attacks against a node with default limits and GOMEMLIMIT=256MiB, over
// Redis. In make test a few connections send little, and bytes are compared; in make attack
// 30 connections hold what they can and send 1 Mbit/s together, while a neighbour measures.
func TestAttacks(t *testing.T) {
	node := binary
	if long {
		var err error
		if node, err = nodetest.BuildPlain(t.TempDir()); err != nil {
			t.Fatal(err)
		}
	} else {
		t.Parallel()
	}
	for _, row := range slices.Concat(attacks, holders, replaysAndHeld, waitingAttacks) {
		t.Run(row.name, func(t *testing.T) {
			if !long {
				t.Parallel()
			}
			assail(t, row, node)
		})
	}
}
