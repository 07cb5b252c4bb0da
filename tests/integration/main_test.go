// Package integration tests the built node from outside: stock clients, raw
// connections and a browser against the binary that users run.
package integration

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"

	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// patience bounds every wait; see [nodetest.Patience].
const patience = nodetest.Patience

// nodeBinary is the node under test, built once with the race detector.
var nodeBinary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if err := checkTools(); err != nil {
		fmt.Fprintln(os.Stderr, "integration tests:", err, "(make setup installs what is missing)")
		return 1
	}
	dir, err := os.MkdirTemp("", "rejoin-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if nodeBinary, err = nodetest.Build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	// toxiproxy leaves the pipe of a connection behind that ends while its toxics
	// change.
	if err := goleak.Find(goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run")); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// checkTools reports the missing tools of the tests.
func checkTools() error {
	if _, err := exec.LookPath("node"); err != nil {
		return fmt.Errorf("Node.js is missing: %w", err)
	}
	if _, err := os.Stat("../node_modules/socket.io-client-4-0-0"); err != nil {
		return fmt.Errorf("the npm clients are missing: %w", err)
	}
	if _, err := chromium(); err != nil {
		return fmt.Errorf("Chromium is missing: %w", err)
	}
	return nil
}

// chromium finds the browser.
func chromium() (string, error) {
	var err error
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		var path string
		if path, err = exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", err
}
