package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/tests/inbox"
)

// python is the interpreter that has the packages of Debian.
const python = "/usr/bin/python3"

// A pythonClient is a process with one client of python-socketio.
type pythonClient struct {
	t       *testing.T
	in      io.WriteCloser
	reports inbox.Inbox[report]
}

// startPython starts the process and waits until the client is connected; the
// test's end ends it. Python reports errors of handlers on standard error, which
// fails the test.
func startPython(t *testing.T, url, transport string) *pythonClient {
	t.Helper()
	cmd := exec.Command(python, "client/python.py", url, transport)
	c := &pythonClient{t: t}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.in = in
	ended := make(chan struct{})
	go func() { // ends with the process
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var r report
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				t.Errorf("the Python process printed %q", lines.Text())
			}
			c.reports.Put(r)
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		<-ended
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("the Python process: %v\n%s", err, &stderr)
		}
	})
	c.await("connect", "")
	return c
}

// await waits for a report of some kind, and of some event.
func (c *pythonClient) await(kind, event string) report {
	c.t.Helper()
	r, err := c.reports.Take(patience, func(r report) bool { return r.Report == kind && r.Event == event })
	if err != nil {
		c.t.Fatalf("python-socketio: no %s %s: %v", kind, event, err)
	}
	return r
}

// hears waits for an event whose handler got exactly these arguments, in JSON.
func (c *pythonClient) hears(event string, args ...string) {
	c.t.Helper()
	r := c.await("event", event)
	got := make([]string, len(r.Args))
	for i, arg := range r.Args {
		got[i] = string(arg)
	}
	if fmt.Sprint(got) != fmt.Sprint(args) {
		c.t.Errorf("python-socketio: %s%v, want %v", event, got, args)
	}
}

// ask emits an event and returns the first argument of its ack.
func (c *pythonClient) ask(args ...any) (r reply) {
	c.t.Helper()
	c.command("ask", args)
	ack := c.await("ack", "")
	if err := json.Unmarshal(ack.Args[0], &r); err != nil || !r.OK {
		c.t.Fatalf("python-socketio: %v was acked %s", args, ack.Args)
	}
	return r
}

func (c *pythonClient) command(name string, args []any) {
	c.t.Helper()
	line, err := json.Marshal(map[string]any{name: args})
	if err == nil {
		_, err = c.in.Write(append(line, '\n'))
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// TestPythonClient: handlers of python-socketio get exactly the arguments that
// were emitted, in rooms that stock clients with recovery are in as well.
func TestPythonClient(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	d := startDriver(t)
	for _, transport := range []string{"polling", "websocket"} {
		t.Run(transport, func(t *testing.T) {
			room := "room of " + transport
			stock := d.open("stock beside "+transport, newest, n.url(), transports["websocket"])
			stock.call("join", room)
			c := startPython(t, n.url(), transport)
			if r := c.ask("join", room); fmt.Sprint(r.Rooms) != fmt.Sprint([]string{room}) {
				t.Errorf("it is in %v", r.Rooms)
			}
			stock.call("to", room, "chat", "hello")
			c.hears("chat", `"hello"`)
			stock.call("to", room, "nothing")
			c.hears("nothing")
			stock.call("to", room, "pair", 1, []string{"two"})
			c.hears("pair", "1", `["two"]`)
			stock.call("to", room, "bytes", bytesArg("00ff"))
			c.hears("bytes", `"00ff"`)
			c.ask("to", room, "chat", "and back")
			if r := stock.hears("chat", `"and back"`); len(r.Args) != 2 {
				t.Errorf("the stock client got no offset: %v", r)
			}
			c.command("emit", []any{"self", "chat", "to myself"})
			c.hears("chat", `"to myself"`)
			stock.must("cut", nil)
			stock.await("disconnect")
			c.ask("to", room, "chat", "missed")
			if !stock.await("connect").Recovered {
				t.Error("the stock client was not recovered")
			}
			stock.hears("chat", `"missed"`)
		})
	}
}

// TestRecoveryDeclined: a stock client that declines recovery gets no private ID,
// and its handlers get exactly the arguments that were emitted.
func TestRecoveryDeclined(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	d := startDriver(t)
	for name, options := range map[string]map[string]any{
		"auth":  {"auth": map[string]any{"recovery": false}},
		"query": {"query": map[string]any{"recovery": "false"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := d.open("declines by "+name, newest, n.url(), options)
			if st := s.state(); st.PID != "" {
				t.Errorf("it got the private ID %q", st.PID)
			}
			s.call("self", "chat", "hello")
			if r := s.next("chat"); len(r.Args) != 1 {
				t.Errorf("got arguments %s", r.Args)
			}
			before := s.state()
			s.must("cut", nil)
			s.await("disconnect")
			if now := s.await("connect"); now.Recovered || now.ID == before.ID {
				t.Errorf("after a reconnect: %+v, before %+v", now, before)
			}
		})
	}
}

// TestRecoveryClients: the node's setting decides for the clients that do not.
func TestRecoveryClients(t *testing.T) {
	t.Parallel()
	requested := startNode(t, "REJOIN_RECOVERY_CLIENTS=requested")
	d := startDriver(t)
	if s := d.open("silent", newest, requested.url(), nil); s.state().PID != "" {
		t.Error("requested: a client that does not ask got a private ID")
	}
	asking := map[string]any{"auth": map[string]any{"recovery": true}}
	if s := d.open("asking", newest, requested.url(), asking); s.state().PID == "" {
		t.Error("requested: a client that asks got no private ID")
	}
}
