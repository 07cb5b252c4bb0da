package integration

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// TestHookGuide: the receivers in docs/hooks.md do what the guide says, and refuse questions that are
// not signed. rejoin -check asks them.
func TestHookGuide(t *testing.T) {
	t.Parallel()
	for _, guide := range []struct{ language, file, command string }{
		{"javascript", "receiver.mjs", "node"}, {"python", "receiver.py", "python3"},
	} {
		t.Run(guide.language, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), guide.file)
			if err := os.WriteFile(file, []byte(blocksOf(t, guide.language, "../../docs/hooks.md")[0].code), 0o600); err != nil {
				t.Fatal(err)
			}
			port := redistest.FreePort(t)
			address := "127.0.0.1:" + port
			variables := []string{
				"REJOIN_HOOK_URL=http://" + address, "REJOIN_HOOK_SECRETS=whsec_bmV3LCBhbmQgbm90IGtub3duIHRvIGFueW9uZSB5ZXQ=," + hookSecret,
				"REJOIN_HOOK_CONNECT=true", "REJOIN_HOOK_EVENTS=*",
			}
			check := func() (string, error) {
				cmd := nodetest.Command(nodeBinary, variables...)
				cmd.Args = append(cmd.Args, "-check")
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			if out, err := check(); err == nil || !strings.Contains(out, "REJOIN_HOOK_URL") {
				t.Errorf("-check without a receiver: %v: %s", err, out)
			}
			run := exec.CommandContext(context.WithoutCancel(t.Context()), guide.command, file)
			run.Env = append(os.Environ(), "PORT="+port, "HOOK_SECRETS="+hookSecret)
			run.Stderr = os.Stderr
			if err := run.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = run.Process.Kill()
				_ = run.Wait()
			})
			eventually(t, "the receiver does not listen", func() error {
				c, err := net.Dial("tcp", address)
				if err != nil {
					return err
				}
				return c.Close()
			})
			if out, err := check(); err != nil || out != "ok\n" {
				t.Errorf("-check: %v: %s", err, out)
			}
			response, err := internalHTTP.Post("http://"+address, "application/json", strings.NewReader(`{"type":"rejoin.ping","id":"q"}`))
			if err != nil {
				t.Fatal(err)
			}
			if response.Body.Close(); response.StatusCode != http.StatusUnauthorized {
				t.Errorf("an unsigned question: %s", response.Status)
			}
			n := startUnready(t, variables...)
			n.awaitReady()
			d := startDriver(t)
			ann, bob := d.open("ann", newest, n.url(), as("ann")), d.open("bob", newest, n.url(), as("bob"))
			if got := ann.ask("once", "0123456789abcdef", "order:place", 1); string(got[0]) != `{"ok":true,"order":1}` {
				t.Errorf("acked %s", got)
			}
			bob.hears("order:new", "1", `"ann"`)
			if got := ann.ask("once", "0123456789abcdef", "order:place", 1); string(got[0]) != `{"ok":true,"order":1}` {
				t.Errorf("acked the second attempt %s", got)
			}
			bob.call("self", "settled")
			bob.hears("settled") // nothing of the second attempt
			if r := ann.try("chat"); r.Code != "unknown_event" || r.Message != "No such event" {
				t.Errorf("another event: %+v", r)
			}
			if r := d.opening("nobody", newest, n.url(), transports["websocket"]).await("connect_error"); r.Reason != "Who are you?" {
				t.Errorf("refused with %v", r)
			}
		})
	}
}
