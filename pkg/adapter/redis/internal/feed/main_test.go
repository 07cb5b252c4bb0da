package feed

import (
	"flag"
	"os"
	"testing"
)

// TestMain runs more checks of the model than rapid would: a feed is fast. -rapid.checks overrides
// that.
func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "4000")
	os.Exit(m.Run())
}
