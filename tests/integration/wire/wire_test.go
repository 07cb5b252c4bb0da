// Package wire tests the protocol itself: conversations in raw HTTP and
// WebSocket frames, with no client library in between, played from testdata.
package wire

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			for _, s := range readScript(t, file) {
				t.Run(s.title, func(t *testing.T) { play(t, s, startServer(t, s.options)) })
			}
		})
	}
}
