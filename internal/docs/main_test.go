// Package docs tests statements of the documents: the listed rights are those that nodes
// need, the sizes are right, and the named tests exist. tests/integration runs the programs
// in the documents.
package docs

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
