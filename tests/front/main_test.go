// Package front tests stock clients and the library through routers and
// middlewares of Go programs, and real proxies.
package front

import (
	"bufio"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait.
const patience = 60 * time.Second

// newServer returns a server that answers the event echo. The test's end closes it.
func newServer(t *testing.T, engine engineio.Options, log *zap.Logger) *socketio.Server {
	t.Helper()
	srv, err := socketio.NewServer(socketio.Options{Engine: engine, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	srv.On("echo", func(_ context.Context, e *socketio.Event) error {
		var text string
		if err := e.Bind(&text); err != nil {
			return err
		}
		return e.Ack(text)
	})
	closeAtEnd(t, srv)
	return srv
}

func closeAtEnd(t *testing.T, srv *socketio.Server) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

// A line is a line of client.js' output.
type line struct {
	Connect    int
	Echo       string
	Transport  string
	Disconnect string
	Error      string
	Active     bool
}

// runClient runs client.js and returns its lines.
func runClient(t *testing.T, url, transport, path, kind string, env ...string) []line {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "client.js", url, transport, path, kind)
	cmd.Env = append(cmd.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("client: %v\n%s", err, out)
	}
	var lines []line
	for scanner := bufio.NewScanner(strings.NewReader(string(out))); scanner.Scan(); {
		var l line
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
			t.Fatalf("%v: %s", err, scanner.Text())
		}
		lines = append(lines, l)
	}
	return lines
}

// echoes checks that a client's event is answered on a transport.
func echoes(t *testing.T, lines []line, transport string) {
	t.Helper()
	if n := len(lines); n != 2 || lines[1].Echo != "hello" || lines[1].Transport != transport {
		t.Errorf("on %s: %+v", transport, lines)
	}
}
