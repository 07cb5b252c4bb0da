package client

import (
	"encoding/json"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bundle writes a bundle without some files into a new folder.
func bundle(t *testing.T, without ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range Names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("/*!\n * Socket.IO v4.8.4\n */\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range without {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpen(t *testing.T) {
	files, version, err := Open(bundle(t))
	if err != nil || version != "4.8.4" {
		t.Fatalf("version %q, error %v; want 4.8.4", version, err)
	}
	for _, name := range Names {
		if _, err := fs.ReadFile(files, name); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenNamesWhatIsMissing(t *testing.T) {
	_, _, err := Open(bundle(t, "socket.io.js", "socket.io.min.js.map"))
	if err == nil || !strings.Contains(err.Error(), "socket.io.js, socket.io.min.js.map") {
		t.Errorf("error %v does not name both missing files", err)
	}
}

func TestOpenRefusesOtherThings(t *testing.T) {
	other := bundle(t)
	if err := os.WriteFile(filepath.Join(other, "socket.io.min.js"), []byte("alert(1)"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{other, filepath.Join(other, "nowhere"), filepath.Join(other, "socket.io.js")} {
		if _, _, err := Open(dir); err == nil {
			t.Errorf("%s was taken for a bundle", dir)
		}
	}
}

// The pinned version and the embedded one are the same, if there is one.
func TestEmbeddedIsThePinnedVersion(t *testing.T) {
	source, err := os.ReadFile("package.json")
	if err != nil {
		t.Fatal(err)
	}
	var pinned struct{ Dependencies map[string]string }
	if err := json.Unmarshal(source, &pinned); err != nil {
		t.Fatal(err)
	}
	want := pinned.Dependencies["socket.io-client"]
	if _, version, ok := FS(); ok && version != want {
		t.Errorf("embedded client %s, pinned %s: run make client", version, want)
	} else if !ok && version != "" {
		t.Errorf("no bundle, but version %s", version)
	}
}

func TestMissingSaysWhatToDo(t *testing.T) {
	w := httptest.NewRecorder()
	Missing().ServeHTTP(w, httptest.NewRequest("GET", "/socket.io/socket.io.js", nil))
	if w.Code != 404 || !strings.Contains(w.Body.String(), "make client") || !strings.Contains(w.Body.String(), "REJOIN_CLIENT_DIR") {
		t.Errorf("status %d, body %q", w.Code, w.Body)
	}
}
