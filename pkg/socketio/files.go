package socketio

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"strings"
)

// The names under which the client's files are served, each also with .map.
var clientFiles = []string{"socket.io.js", "socket.io.min.js", "socket.io.msgpack.min.js", "socket.io.esm.min.js"}

func isClientFile(name string) bool {
	for _, f := range clientFiles {
		if strings.TrimSuffix(name, ".map") == f {
			return true
		}
	}
	return false
}

// files serves the client's files. Their ETag is a digest of their bytes, unlike
// the reference's, which is the server's version.
type files struct{ fsys fs.FS }

func newFiles(fsys fs.FS) http.Handler { return files{fsys} }

func (f files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	data, err := fs.ReadFile(f.fsys, name)
	if err != nil {
		http.Error(w, name+" is not among the client files of this server", http.StatusNotFound)
		return
	}
	sum := sha256.Sum256(data)
	etag := `"` + hex.EncodeToString(sum[:8]) + `"`
	h := w.Header()
	h.Set("Cache-Control", "public, max-age=0")
	h.Set("ETag", etag)
	h.Set("X-Content-Type-Options", "nosniff")
	if strings.HasSuffix(name, ".map") {
		h.Set("Content-Type", "application/json; charset=utf-8")
	} else {
		h.Set("Content-Type", "application/javascript; charset=utf-8")
	}
	for _, known := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(known), "W/") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	_, _ = w.Write(data)
}
