package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/tests/inbox"
)

// versions are the stock clients that are tested: the newest, and the first of
// its major version.
var versions = []string{newest, oldest}

const (
	newest = "4.8.4"
	oldest = "4.0.0"
)

// forVersions runs a test with each client.
func forVersions(t *testing.T, test func(t *testing.T, version string)) {
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			test(t, version)
		})
	}
}

// A driver is a Node.js process full of stock clients.
type driver struct {
	t       *testing.T
	process *os.Process

	mu      sync.Mutex
	in      io.WriteCloser
	last    int
	answers map[int]chan answer
	sockets map[string]*npmSocket
}

type answer struct {
	OK    json.RawMessage `json:"ok"`
	Error string          `json:"error"`
}

// startDriver starts the process; the test's end ends it.
func startDriver(t *testing.T) *driver {
	t.Helper()
	cmd := exec.Command("node", "client/driver.js")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &driver{t: t, process: cmd.Process, in: in, answers: map[int]chan answer{}, sockets: map[string]*npmSocket{}}
	ended := make(chan struct{})
	go func() { // ends with the process
		defer close(ended)
		d.read(out)
	}()
	t.Cleanup(func() {
		in.Close()
		select {
		case <-ended:
		case <-time.After(patience):
			cmd.Process.Kill()
			<-ended
			t.Error("the Node.js process does not end")
		}
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("the Node.js process: %v\n%s", err, &stderr)
		}
	})
	return d
}

func (d *driver) read(out io.Reader) {
	in := bufio.NewReaderSize(out, 1<<16)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var message struct {
			ID int `json:"id"`
			answer
		}
		var report report
		if json.Unmarshal(line, &report) == nil && report.Socket != "" {
			d.socket(report.Socket).reports.Put(report)
			continue
		}
		if err := json.Unmarshal(line, &message); err != nil {
			d.t.Errorf("the Node.js process printed %q", line)
			return
		}
		d.mu.Lock()
		waiting := d.answers[message.ID]
		delete(d.answers, message.ID)
		d.mu.Unlock()
		waiting <- message.answer
	}
}

func (d *driver) socket(name string) *npmSocket {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sockets[name] == nil {
		d.sockets[name] = &npmSocket{driver: d, name: name}
	}
	return d.sockets[name]
}

// do has the process carry out a command and returns its answer.
func (d *driver) do(command string, fields map[string]any) (json.RawMessage, error) {
	d.mu.Lock()
	d.last++
	id, answered := d.last, make(chan answer, 1)
	d.answers[id] = answered
	line := map[string]any{"id": id, "do": command}
	for k, v := range fields {
		line[k] = v
	}
	b, err := json.Marshal(line)
	if err == nil {
		_, err = d.in.Write(append(b, '\n'))
	}
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-answered:
		if a.Error != "" {
			return nil, fmt.Errorf("%s: %s", command, a.Error)
		}
		return a.OK, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("%s is not answered after %v", command, patience)
	}
}

// suspend stops the process where it stands, as a laptop's lid does, until
// resume.
func (d *driver) suspend() { d.signal(syscall.SIGSTOP) }

func (d *driver) resume() { d.signal(syscall.SIGCONT) }

func (d *driver) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// open creates a client with a connection of its own and waits until it is
// connected. The options are the client's own.
func (d *driver) open(name, version, url string, options map[string]any) *npmSocket {
	d.t.Helper()
	s := d.opening(name, version, url, options)
	s.await("connect")
	return s
}

// opening is open without the wait.
func (d *driver) opening(name, version, url string, options map[string]any) *npmSocket {
	d.t.Helper()
	s := d.socket(name)
	s.must("open", map[string]any{"version": version, "url": url, "options": options})
	return s
}

// An npmSocket is one socket of a stock client.
type npmSocket struct {
	driver  *driver
	name    string
	reports inbox.Inbox[report]
}

// A report is an event that a socket got.
type report struct {
	Socket string
	Report string // connect, disconnect, connect_error, event or joined
	state
	Reason string // of a disconnect or connect_error
	Event  string
	Args   []json.RawMessage
	Asked  bool // the event wanted an acknowledgement, and got its arguments back
	Unsure bool // of a rewound join: an earlier one may have taken effect
}

// A state is the client's own state.
type state struct {
	ID        string
	Connected bool
	Recovered bool
	PID       string
	Offset    string
	Engine    string // id of the connection
	Transport string
}

// texts returns the arguments as JSON, without the offset, which is the last
// argument of every event that asks for no acknowledgement.
func (r report) texts() []string {
	args := r.Args
	if !r.Asked {
		args = args[:len(args)-1]
	}
	texts := make([]string, len(args))
	for i, arg := range args {
		texts[i] = string(arg)
	}
	return texts
}

func (r report) String() string {
	return fmt.Sprintf("%s %s %s%s %.200s", r.Socket, r.Report, r.Event, r.Reason, r.Args)
}

func (s *npmSocket) must(command string, fields map[string]any) json.RawMessage {
	s.driver.t.Helper()
	if fields == nil {
		fields = map[string]any{}
	}
	fields["socket"] = s.name
	ok, err := s.driver.do(command, fields)
	if err != nil {
		s.driver.t.Fatalf("%s: %v; unread reports:\n%s", s.name, err, &s.reports)
	}
	return ok
}

// join opens a socket for another namespace on the same connection.
func (s *npmSocket) join(name, namespace string, options map[string]any) *npmSocket {
	s.driver.t.Helper()
	other := s.driver.socket(name)
	other.must("join", map[string]any{"via": s.name, "namespace": namespace, "options": options})
	return other
}

// await waits for the next report of a kind and drops nothing else.
func (s *npmSocket) await(kind string) report {
	s.driver.t.Helper()
	r, err := s.reports.Take(patience, func(r report) bool { return r.Report == kind })
	if err != nil {
		s.driver.t.Fatalf("%s: no %s: %v", s.name, kind, err)
	}
	return r
}

// next waits for the next event, which must have this name.
func (s *npmSocket) next(event string) report {
	s.driver.t.Helper()
	r := s.await("event")
	if r.Event != event {
		s.driver.t.Fatalf("%s: got event %v, want %s", s.name, r, event)
	}
	return r
}

// hears waits for the next event and compares it; args are JSON.
func (s *npmSocket) hears(event string, args ...string) report {
	s.driver.t.Helper()
	r := s.next(event)
	if got := fmt.Sprint(r.texts()); got != fmt.Sprint(args) {
		s.driver.t.Fatalf("%s: %s: got %s, want %s", s.name, event, excerpt(got), excerpt(fmt.Sprint(args)))
	}
	return r
}

func (s *npmSocket) emit(args ...any) {
	s.driver.t.Helper()
	s.must("emit", map[string]any{"args": args})
}

// ask emits and returns the acknowledgement's arguments.
func (s *npmSocket) ask(args ...any) []json.RawMessage {
	s.driver.t.Helper()
	var got []json.RawMessage
	if err := json.Unmarshal(s.must("ask", map[string]any{"args": args}), &got); err != nil {
		s.driver.t.Fatal(err)
	}
	return got
}

// call asks the built-in application, which must say ok.
func (s *npmSocket) call(args ...any) reply {
	s.driver.t.Helper()
	r := s.try(args...)
	if !r.OK {
		s.driver.t.Fatalf("%s: %v: %s: %s", s.name, args, r.Code, r.Message)
	}
	return r
}

// try asks the built-in application.
func (s *npmSocket) try(args ...any) reply {
	s.driver.t.Helper()
	var r reply
	answer := s.ask(args...)
	if len(answer) != 1 {
		s.driver.t.Fatalf("%s: %v is answered with %s", s.name, args, answer)
	}
	if err := json.Unmarshal(answer[0], &r); err != nil {
		s.driver.t.Fatal(err)
	}
	return r
}

// bytesArg is an argument that travels as binary.
func bytesArg(hex string) any { return map[string]string{"$bytes": hex} }

func (s *npmSocket) state() state {
	s.driver.t.Helper()
	var st state
	if err := json.Unmarshal(s.must("state", nil), &st); err != nil {
		s.driver.t.Fatal(err)
	}
	return st
}

// A reply is an ack of the built-in application.
type reply struct {
	OK      bool
	Code    string
	Message string
	Offset  string
	Rooms   []string
	More    bool
	Partial bool
	Events  []historical
	Members []member
}

type historical struct {
	Offset string
	Event  string
	Args   []json.RawMessage
	At     json.RawMessage
}

type member struct{ ID, User string }

// excerpt shows both ends of a long text.
func excerpt(text string) string {
	if len(text) <= 300 {
		return text
	}
	return text[:150] + " … " + text[len(text)-150:]
}
