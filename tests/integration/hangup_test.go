package integration

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestHangup: SIGHUP does not end a node, which then uses the new API keys and keeps its clients.
func TestHangup(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	write := func(keys string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(keys), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("the-first-key-of-it")
	n := startNode(t, "REJOIN_API_KEYS_FILE="+file)
	ann := startDriver(t).open("ann", newest, n.url(), transports["websocket"])
	id := ann.state().ID
	first := &backend{t, n.internal, "the-first-key-of-it"}
	second := &backend{t, n.internal, apiKey}
	if status := second.do(apiCall{method: "GET", path: "rooms"}).status; status != 401 {
		t.Fatalf("the second key before the reload: status %d, want 401", status)
	}
	write(apiKey)
	if err := n.process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	n.eventually("the reload", func() error {
		if !n.log.Contains("configuration reloaded") {
			return errors.New("it is not in the log")
		}
		return nil
	})
	if status := first.do(apiCall{method: "GET", path: "rooms"}).status; status != 401 {
		t.Errorf("the first key: status %d, want 401", status)
	}
	if got := second.get("sockets").Sockets; len(got) != 1 || got[0].ID != id {
		t.Errorf("got the sockets %v, want only %s", got, id)
	}
}
