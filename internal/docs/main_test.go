// Package docs holds the documents to what they say: that the rights they list
// are those that nodes need, that the sizes are right, and that the tests they
// name exist. The programs that they show are run by tests/integration.
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
