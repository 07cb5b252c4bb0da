package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/socketio"
	"github.com/rejoin-io/rejoin/tests/inbox"
)

// A recorder is a server that records the events of clients.
type recorder struct {
	*testing.T
	srv   *socketio.Server
	relay *relay
	heard inbox.Inbox[string]
}

func newRecorder(t *testing.T) *recorder {
	r := &recorder{T: t}
	r.srv, r.relay = serveSheet(t, socketio.Options{})
	return r
}

// note notes an event and its arguments.
func (r *recorder) note(_ context.Context, e *socketio.Event) error {
	args, err := json.Marshal(e.Rest(0))
	r.heard.Put(e.Name + " " + string(args))
	return err
}

// hears checks the recorded events, in order.
func (r *recorder) hears(want ...string) {
	r.Helper()
	for _, w := range want {
		got, err := r.heard.Next(patience)
		if err != nil || got != w {
			r.Errorf("heard %q, want %q, %v", got, w, err)
		}
	}
	if rest := r.heard.Drain(); len(rest) > 0 {
		r.Errorf("heard %q too", rest)
	}
}

// plays runs a client program with url set, until it ends, and checks its
// output.
func (r *recorder) plays(program, want string) {
	r.Helper()
	got := runJS(r.T, `import { io } from "socket.io-client"; const url = "`+r.relay.url()+`";`+program)
	if strings.TrimSpace(got) != want {
		r.Errorf("printed %q, want %q", got, want)
	}
}

// runJS runs a program with Node.js where it finds the stock client, and returns
// its output.
func runJS(t *testing.T, program string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "--input-type=module", "-")
	cmd.Dir = ".."
	cmd.Stdin = strings.NewReader(program)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, &stderr)
	}
	return string(out)
}

// clientRows are the rows 35 to 42: events of the stock client.
var clientRows = map[int]func(*recorder){
	35: func(r *recorder) {
		srv, h := r.srv, r.note
		srv.On("news", h)
		r.plays(`
			const socket = io(url);
			socket.emit("news", 1); // kept until connected
			socket.on("connect", () => {
				socket.emit("news", 2);
				socket.disconnect();
			});`, "")
		r.hears("news [1]", "news [2]")
	},
	36: func(r *recorder) {
		r.srv.On("news", func(_ context.Context, e *socketio.Event) error {
			return e.Ack(2)
		})
		r.plays(`
			const socket = io(url);
			const cb = (answer) => {
				console.log(answer);
				socket.disconnect();
			};
			socket.emit("news", 1, cb);`, "2")
	},
	37: func(r *recorder) {
		r.srv.On("news", func(_ context.Context, e *socketio.Event) error {
			return nil
		})
		r.plays(`
			const socket = io(url);
			const cb = (error) => {
				console.log(error.message);
				socket.disconnect();
			};
			socket.on("connect", () => socket.timeout(100).emit("news", 1, cb));`, "operation has timed out")
	},
	38: func(r *recorder) {
		r.srv.On("news", func(_ context.Context, e *socketio.Event) error {
			if string(e.Raw(0)) == "3" {
				return nil
			}
			return e.Ack(2)
		})
		r.plays(`
			const socket = io(url);
			console.log(await socket.emitWithAck("news", 1));
			console.log(await socket.timeout(10_000).emitWithAck("news", 2));
			try {
				await socket.timeout(100).emitWithAck("news", 3);
			} catch (error) {
				console.log(error.message);
			}
			socket.disconnect();`, "2\n2\noperation has timed out")
	},
	39: func(r *recorder) {
		srv, h := r.srv, r.note
		srv.On("news", h)
		r.plays(`
			const socket = io(url, { transports: ["websocket"] });
			socket.volatile.emit("news", "dropped, for it is not connected");
			socket.on("connect", () => setTimeout(() => {
				socket.volatile.emit("news", 1);
				socket.emit("news", 2);
				socket.disconnect();
			}));`, "")
		r.hears("news [1]", "news [2]")
	},
	40: func(r *recorder) {
		srv, h := r.srv, r.note
		srv.On("message", h)
		r.plays(`
			const socket = io(url);
			socket.send(1);
			socket.on("connect", () => socket.disconnect());`, "")
		r.hears("message [1]")
	},
	41: func(r *recorder) {
		srv, h := r.srv, r.note
		srv.On("news", h)
		r.plays(`
			const socket = io(url);
			socket.on("connect", () => {
				socket.compress(false).emit("news", 1);
				socket.disconnect();
			});`, "")
		r.hears("news [1]")
	},
	42: func(r *recorder) {
		tries := 0
		r.srv.On("news", func(ctx context.Context, e *socketio.Event) error {
			tries++
			if err := r.note(ctx, e); err != nil || tries == 1 {
				return err // and no ack: the client sends it again
			}
			return e.Ack(2)
		})
		r.plays(`
			const socket = io(url, { retries: 2, ackTimeout: 100 });
			socket.emit("news", 1);
			socket.emit("news", 2, () => socket.disconnect());`, "")
		r.hears("news [1]", "news [1]", "news [2]")
	},
}
