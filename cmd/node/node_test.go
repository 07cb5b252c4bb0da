package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A listening is the line that a node logs once it can be reached.
type listening struct {
	Msg      string
	Node     string
	Addr     string
	Internal string `json:"internal_addr"`
}

// startNode runs the program on free ports. stop ends it and returns its exit
// code.
func startNode(t *testing.T, variables map[string]string) (at listening, stop func() int) {
	t.Helper()
	environment(t, map[string]string{"REJOIN_ADDR": "127.0.0.1:0", "REJOIN_INTERNAL_ADDR": "127.0.0.1:0"})
	for name, value := range variables {
		t.Setenv(name, value)
	}
	ctx, cancel := context.WithCancel(t.Context())
	logs, w := io.Pipe()
	code := make(chan int)
	go func() { // ends when the node has stopped
		code <- run(ctx, ctx, nil, nil, io.Discard, w)
	}()
	lines := json.NewDecoder(logs)
	for at.Msg != "listening" {
		if err := lines.Decode(&at); err != nil {
			t.Fatal(err)
		}
	}
	drained := make(chan struct{})
	go func() { // ends with the pipe
		defer close(drained)
		_, _ = io.Copy(io.Discard, logs)
	}()
	return at, func() int {
		cancel()
		defer func() { w.Close(); <-drained }()
		return <-code
	}
}

// fetch returns the status and body of a URL.
func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	return exchange(t, http.MethodGet, url, "")
}

func exchange(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

func TestNodeServesAndStops(t *testing.T) {
	at, stop := startNode(t, map[string]string{"REJOIN_NODE_ID": "n001", "REJOIN_NAMESPACES": "/,/chat"})
	public, internal := "http://"+at.Addr, "http://"+at.Internal
	for _, test := range []struct {
		url    string
		status int
		says   string
	}{
		{public + "/socket.io/?EIO=4&transport=polling", 200, `"sid":"n001`},
		{public + "/", 200, "<!doctype html>"},
		{public + "/metrics", 404, ""},
		{public + "/healthz", 404, ""},
		{internal + "/healthz", 200, `"status":"alive"`},
		{internal + "/readyz", 200, `"node":"n001"`},
		{internal + "/metrics", 200, "rejoin_namespaces 2"},
		{internal + "/socket.io/", 404, ""},
	} {
		status, body := fetch(t, test.url)
		if status != test.status || !strings.Contains(strings.ToLower(body), strings.ToLower(test.says)) {
			t.Errorf("%s: got %d %.200s, want %d with %q", test.url, status, body, test.status, test.says)
		}
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestNodeWithoutDemo(t *testing.T) {
	at, stop := startNode(t, map[string]string{"REJOIN_DEMO": "false", "REJOIN_PATH": "/a/b/"})
	if status, _ := fetch(t, "http://"+at.Addr+"/"); status != 404 {
		t.Errorf("/: status %d, want 404", status)
	}
	if status, body := fetch(t, "http://"+at.Addr+"/a/b/?EIO=4&transport=polling"); status != 200 || !strings.Contains(body, `"sid":"`+at.Node) {
		t.Errorf("status %d: %s; the session id does not begin with the node's %s", status, body, at.Node)
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestWithoutMainNamespace(t *testing.T) {
	at, stop := startNode(t, map[string]string{"REJOIN_NAMESPACES": "/chat"})
	session := "http://" + at.Addr + "/socket.io/?EIO=4&transport=polling"
	_, handshake := fetch(t, session)
	_, rest, _ := strings.Cut(handshake, `"sid":"`)
	sid, _, _ := strings.Cut(rest, `"`)
	session += "&sid=" + sid
	for connect, want := range map[string]string{
		"40":       `44{"message":"Invalid namespace"}`,
		"40/other": `44/other,{"message":"Invalid namespace"}`,
		"40/chat,": `40/chat,{"sid":`,
	} {
		if status, body := exchange(t, http.MethodPost, session, connect); status != 200 {
			t.Fatalf("%s: %d %s, want 200", connect, status, body)
		}
		if _, body := fetch(t, session); !strings.HasPrefix(body, want) {
			t.Errorf("%s is answered by %s, want %s", connect, body, want)
		}
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestPortsInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, name := range []string{"REJOIN_ADDR", "REJOIN_INTERNAL_ADDR"} {
		environment(t, map[string]string{"REJOIN_ADDR": "127.0.0.1:0", "REJOIN_INTERNAL_ADDR": "127.0.0.1:0"})
		t.Setenv(name, taken.Addr().String())
		code, _, stderr := execute(t)
		if code != 1 || !strings.Contains(stderr, name) {
			t.Errorf("%s: exit code %d, stderr %s", name, code, stderr)
		}
	}
}

func TestConsoleNamesTheDemo(t *testing.T) {
	environment(t, map[string]string{"REJOIN_ADDR": "127.0.0.1:0", "REJOIN_INTERNAL_ADDR": "127.0.0.1:0", "REJOIN_LOG_FORMAT": "console"})
	code, _, stderr := execute(t)
	if code != 0 || !strings.Contains(stderr, "open http://127.0.0.1:") {
		t.Errorf(`exit code %d, stderr %s, want 0, text with "open http://127.0.0.1:"`, code, stderr)
	}
}

func TestLogLevel(t *testing.T) {
	var b bytes.Buffer
	log := newLogger(config{LogLevel: "warn", LogFormat: "json"}, &b)
	log.Info("quiet")
	log.Warn("loud")
	var line struct{ Level, Msg, Time string }
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line.Level != "warn" || line.Msg != "loud" || line.Time == "" {
		t.Errorf("logged %s, parsed as %+v, %v, want level warn and message loud", fmt.Sprint(&b), line, err)
	}
}

// Only a message that is logged repeatedly is sampled. Texts that may come from clients are
// shortened, and stacks are not.
func TestLogIsBounded(t *testing.T) {
	var b bytes.Buffer
	log := newLogger(config{LogLevel: "info", LogFormat: "json"}, &b)
	long := strings.Repeat("x", 100_000)
	for range 10_000 {
		log.Info("again", zap.String("event", long), zap.Error(errors.New(long)))
	}
	log.Info("another", zap.ByteString("stack", []byte(strings.Repeat("y", 5000))))
	log.With(zap.String("event", long)).Warn("again")
	text := b.String()
	if n := strings.Count(text, `"msg":"again"`); n < logFirst || n > 10_000/10 {
		t.Errorf("got %d entries of 10,000, want at least %d, at most %d", n, logFirst, 10_000/10)
	}
	if len(text) > 3*(maxLogText+100)*(10_000/10) || strings.Contains(text, strings.Repeat("x", maxLogText+1)) {
		t.Errorf("%d bytes", len(text))
	}
	if !strings.Contains(text, `"msg":"another"`) || !strings.Contains(text, strings.Repeat("y", 5000)) || !strings.Contains(text, `"level":"warn"`) {
		t.Error("an entry is missing or cut")
	}
	written := strings.Count(text, "\n")
	if dropped := int(testutil.ToFloat64(log.dropped)); dropped != 10_002-written {
		t.Errorf("got %d dropped and %d written, want %d", dropped, written, 10_002-written)
	}
	b.Reset()
	log = newLogger(config{LogLevel: "debug", LogFormat: "json"}, &b)
	for range 1000 {
		log.Debug("again")
	}
	if n := strings.Count(b.String(), "\n"); n != 1000 {
		t.Errorf("debug: %d entries of 1,000, want 1000", n)
	}
}
