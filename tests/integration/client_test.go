package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// transports are the ways in which a stock client can be set up to connect.
var transports = map[string]map[string]any{
	"polling":   {"transports": []string{"polling"}},
	"websocket": {"transports": []string{"websocket"}},
	"upgrade":   {},
}

// forTransports runs a test with each client on each transport, against one node.
func forTransports(t *testing.T, test func(t *testing.T, s *npmSocket)) {
	forVersions(t, func(t *testing.T, version string) {
		n := startNode(t)
		for name, options := range transports {
			t.Run(name, func(t *testing.T) {
				s := startDriver(t).open(name, version, n.url(), options)
				if name == "upgrade" {
					s.awaitUpgrade()
				}
				test(t, s)
			})
		}
	})
}

func (s *npmSocket) awaitUpgrade() {
	s.driver.t.Helper()
	eventually(s.driver.t, "no upgrade", func() error {
		if now := s.state().Transport; now != "websocket" {
			return fmt.Errorf("on %s", now)
		}
		return nil
	})
}

func TestTransports(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, s *npmSocket) {
		want := "websocket"
		if s.name == "polling" {
			want = "polling"
		}
		if got := s.state().Transport; got != want {
			t.Errorf("on %s, want %s", got, want)
		}
		s.call("self", "hello", "world", 1, nil)
		s.hears("hello", `"world"`, `1`, `null`)
	})
}

// TestEventsDuringUpgrade emits while the client moves from one transport to
// the other.
func TestEventsDuringUpgrade(t *testing.T) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		n := startNode(t)
		s := startDriver(t).open("s", version, n.url(), nil)
		for i := range 100 {
			s.emit("self", "n", i)
		}
		for i := range 100 {
			s.hears("n", fmt.Sprint(i))
		}
		s.awaitUpgrade()
	})
}

func TestBinary(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, s *npmSocket) {
		bytes := strings.Repeat("00ff10", 1000)
		s.call("self", "bytes", bytesArg(bytes), map[string]any{"deep": []any{bytesArg("c0ffee")}}, bytesArg(""))
		s.hears("bytes", `{"$bytes":"`+bytes+`"}`, `{"deep":[{"$bytes":"c0ffee"}]}`, `{"$bytes":""}`)
		answer := s.ask("echo", bytesArg("01"), "and", bytesArg("02"))
		if got := fmt.Sprintf("%s", answer); got != `[{"$bytes":"01"} "and" {"$bytes":"02"}]` {
			t.Errorf("got %s", got)
		}
	})
}

func TestUnicode(t *testing.T) {
	t.Parallel()
	const text = "naïve ☃ 𝒳 日本語 \u0000 \u2028 \ufffd <b>&amp;</b> \"quoted\" 👩‍👩‍👧‍👦"
	forTransports(t, func(t *testing.T, s *npmSocket) {
		room := "räum 👋," + s.name
		if got := s.call("join", room).Rooms; !slices.Contains(got, room) {
			t.Errorf("rooms: %q", got)
		}
		s.call("self", "ünï☃", text)
		r := s.next("ünï☃")
		var got string
		if err := json.Unmarshal(r.Args[0], &got); err != nil || got != text {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestLargePayloads(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 900_000)
	forTransports(t, func(t *testing.T, s *npmSocket) {
		s.call("self", "large", large)
		r := s.next("large")
		if got := len(r.Args[0]); got != len(large)+2 {
			t.Errorf("got %d bytes of JSON", got)
		}
		answer := s.ask("echo", bytesArg(strings.Repeat("ab", 600_000)))
		if got := len(answer[0]); got != len(`{"$bytes":""}`)+1_200_000 {
			t.Errorf("got %d bytes back", got)
		}
	})
}

// TestOversize: a message that is too large closes a WebSocket, and on polling
// makes the client reconnect; in both cases the client gets a reason and
// reconnects.
func TestOversize(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, s *npmSocket) {
		s.emit("self", "never", strings.Repeat("x", 1_100_000))
		s.await("disconnect")
		s.await("connect")
		s.call("self", "after")
		s.hears("after")
	})
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		n := startNode(t, "REJOIN_NAMESPACES=/,/chat")
		d := startDriver(t)
		main := d.open("main", version, n.url(), nil)
		chat := main.join("chat", "/chat", map[string]any{"auth": map[string]any{"token": "x"}})
		if id := chat.await("connect").ID; id == "" || id == main.state().ID {
			t.Errorf("socket ids: %q and %q", id, main.state().ID)
		}
		chat.call("all", "in chat")
		chat.hears("in chat")
		main.call("all", "in main")
		main.hears("in main")
		none := main.join("none", "/none", nil)
		if r := none.await("connect_error"); r.Reason != "Invalid namespace" {
			t.Errorf("refused with %q", r.Reason)
		}
		chat.must("disconnect", nil)
		main.call("all", "still here")
		main.hears("still here")
		for _, s := range []*npmSocket{main, chat} {
			for _, r := range s.reports.Drain() {
				if r.Report == "event" {
					t.Errorf("%s got unexpected events: %v", s.name, r)
				}
			}
		}
	})
}

func TestReconnection(t *testing.T) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		n := startNode(t)
		r := startRelay(t, n)
		d := startDriver(t)
		for name, options := range transports {
			s := d.open(name, version, r.url(), options)
			for range 3 {
				r.down()
				s.await("disconnect")
				r.up()
				s.await("connect")
				s.call("self", "back")
				s.hears("back")
			}
			s.must("disconnect", nil)
		}
	})
}

// TestReconnectsUnlessDisconnected: the stock client reconnects by itself after a broken connection,
// and stays disconnected after a DISCONNECT packet.
func TestReconnectsUnlessDisconnected(t *testing.T) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		n := startNode(t)
		s := startDriver(t).open("s", version, n.url(), nil)
		s.awaitUpgrade() // until then the client keeps its goodbye back, and may be here again before it
		s.must("disconnect", nil)
		if r := s.await("disconnect"); r.Reason != "io client disconnect" {
			t.Errorf("disconnected by %q", r.Reason)
		}
		s.must("connect", nil)
		if r := s.await("connect"); r.Recovered {
			t.Error("the client that left was recovered")
		}
	})
}

func TestManyRooms(t *testing.T) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		n := startNode(t)
		d := startDriver(t)
		s := d.open("member", version, n.url(), nil)
		other := d.open("other", version, n.url(), nil)
		rooms := make([]string, 200)
		for i := range rooms {
			rooms[i] = fmt.Sprintf("room %03d", i)
		}
		if got := s.call("join", rooms).Rooms; !slices.Equal(slices.Sorted(slices.Values(got)), rooms) {
			t.Fatalf("joined %d rooms", len(got))
		}
		for i, room := range rooms {
			other.call("to", room, "n", i)
			s.hears("n", fmt.Sprint(i))
		}
		other.call("to", rooms, "once")
		s.hears("once")
		if got := s.call("leave", rooms[1:]).Rooms; !slices.Equal(got, rooms[:1]) {
			t.Errorf("rooms left: %q", got)
		}
		other.call("to", rooms[1:], "never")
		other.call("to", rooms[0], "last")
		s.hears("last")
	})
}

// TestEngineClosedWhileUpgrading: a stock client whose program closes the engine while it
// changes to a WebSocket shows the events of its last poll twice: it keeps them until it is
// connected again, and its offset does not cover them. No server can know that. Once it has
// changed, it shows them once.
func TestEngineClosedWhileUpgrading(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"while upgrading", "when upgraded"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			n := startNode(t)
			program := `import { createRequire } from "node:module";
				const require = createRequire(process.cwd() + "/");
				const { io } = require("socket.io-client");
				const { Polling } = require("./node_modules/engine.io-client/build/cjs/transports/polling.js");
				// The response with the event comes late, when the client has the answer to its probe.
				const onData = Polling.prototype.onData;
				let late;
				Polling.prototype.onData = function (data) {
					if (late || !data.includes('42["n"')) return onData.call(this, data);
					late = () => onData.call(this, data);
					socket.io.engine._probe("websocket");
				};
				const socket = io("` + n.url() + `", { reconnectionDelay: 5, upgrade: false });
				const heard = [];
				socket.on("n", (i) => heard.push(i));
				socket.once("connect", () => {
					const { engine } = socket.io;
					engine.once("upgrading", () => setTimeout(() => {
						if ("` + how + `" === "while upgrading") engine.close();
						else engine.once("upgrade", () => setTimeout(() => engine.close()));
						late();
					}));
					socket.emit("self", "n", 1);
					socket.once("connect", async () => {
						await socket.emitWithAck("self", "last");
						console.log(socket.recovered, heard.join());
						socket.disconnect();
					});
				});`
			want := "true 1\n"
			if how == "while upgrading" {
				want = "true 1,1\n" // the client's fault
			}
			if got := runJS(t, program); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}
