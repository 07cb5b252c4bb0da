package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// documentedBackends is the internal address in the documents.
const documentedBackends = "localhost:3001"

// manuals are the documents for backends.
var manuals = []string{"../../docs/api.md", "../../docs/exactly-once.md"}

// TestDocumentsAPI: the programs of the documents for backends run twice: a client in the room gets the
// event once, and they print the output in their last comment.
func TestDocumentsAPI(t *testing.T) {
	t.Parallel()
	for language, tt := range map[string]struct {
		file, comment string
		command       []string
	}{
		"sh":     {"emit.sh", "# ", []string{"sh"}},
		"js":     {"emit.mjs", "// ", []string{"node"}},
		"python": {"emit.py", "# ", []string{"python3"}},
		"go":     {"emit.go", "// ", []string{"go", "run"}},
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			for _, tool := range []string{tt.command[0], map[string]string{"sh": "curl"}[language]} {
				if _, err := exec.LookPath(tool); tool != "" && err != nil {
					t.Fatalf("the language is not there: %v (make setup installs it)", err)
				}
			}
			n := startNode(t, withAPI)
			d := startDriver(t)
			ann := d.open("ann", newest, n.url(), transports["websocket"])
			ann.call("join", "lobby")
			all := slices.DeleteFunc(blocksOf(t, language, manuals...), func(b block) bool { return !strings.Contains(b.code, documentedBackends) })
			for i, b := range all {
				_, comment, ok := strings.Cut(b.code, tt.comment+"Output:\n")
				if !ok {
					t.Fatalf("%s lacks its output", b.where)
				}
				want := strings.ReplaceAll(comment, tt.comment, "")
				file := filepath.Join(t.TempDir(), tt.file)
				code := strings.ReplaceAll(b.code, documentedBackends, n.internal)
				if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if got := runFile(t, file, tt.command...); got != want {
						t.Errorf("%s prints\n%s\nwant\n%s", b.where, got, want)
					}
				}
				ann.hears("news", fmt.Sprintf(`{"order":%d,"state":"shipped"}`, i+1)) // each document has its order
			}
			n.backend().post("emit", `{"rooms":["lobby"],"event":"end"}`)
			ann.hears("end")
		})
	}
}

// runFile runs a program with the tests' key, and returns its output.
func runFile(t *testing.T, file string, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // go run compiles
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], file)...)
	cmd.Dir = filepath.Dir(file) // outside of our modules
	cmd.Env = append(os.Environ(), "API_KEY="+apiKey)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", file, err, out, &stderr)
	}
	return string(out)
}
