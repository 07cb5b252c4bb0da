package socketio

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The names under which the client's files are served, each also with .map.
var clientFiles = []string{"socket.io.js", "socket.io.min.js", "socket.io.msgpack.min.js", "socket.io.esm.min.js"}

func isClientFile(name string) bool {
	return slices.Contains(clientFiles, strings.TrimSuffix(name, ".map"))
}

// files serves the client's files. Each is read and compressed once, when it is
// first requested.
type files struct {
	fsys fs.FS
	mu   sync.Mutex
	kept map[string]*file
}

// A file is one file in the forms in which it is served.
type file struct{ plain, gzip content }

// A content is a response body and its headers. Its ETag is a digest of the file's bytes, unlike
// the reference's, which is the server's version.
type content struct {
	data []byte
	etag string
}

func newFiles(fsys fs.FS) http.Handler {
	return &files{fsys: fsys, kept: make(map[string]*file)}
}

// file returns a file. Concurrent first requests wait for each other.
func (f *files) file(name string) (*file, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if kept := f.kept[name]; kept != nil {
		return kept, nil
	}
	data, err := fs.ReadFile(f.fsys, name)
	if err != nil {
		return nil, err
	}
	var compressed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&compressed, gzip.BestCompression) // the level exists
	_, _ = z.Write(data)                                           // writes to memory do not fail
	_ = z.Close()
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:8])
	kept := &file{
		plain: content{data, `"` + digest + `"`},
		gzip:  content{compressed.Bytes(), `"` + digest + `-gzip"`},
	}
	f.kept[name] = kept
	return kept, nil
}

func (f *files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	file, err := f.file(name)
	if err != nil {
		http.Error(w, name+" is not among the client files of this server", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "public, max-age=0")
	h.Add("Vary", "Accept-Encoding")
	h.Set("X-Content-Type-Options", "nosniff")
	if strings.HasSuffix(name, ".map") {
		h.Set("Content-Type", "application/json; charset=utf-8")
	} else {
		h.Set("Content-Type", "application/javascript; charset=utf-8")
	}
	c := file.plain
	if acceptsGzip(r.Header) {
		c = file.gzip
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", c.etag)
	for known := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(known), "W/") == c.etag {
			h.Del("Content-Encoding")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(c.data)))
	_, _ = w.Write(c.data) // the client may have disconnected
}

// acceptsGzip reports whether an Accept-Encoding header allows gzip (RFC 9110,
// section 12.5.3).
func acceptsGzip(h http.Header) bool {
	wildcard := false
	for item := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, params, _ := strings.Cut(item, ";")
		q := 1.0
		if v, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(params)), "q="); ok {
			q, _ = strconv.ParseFloat(v, 64) // malformed is 0: not allowed
		}
		switch coding = strings.ToLower(strings.TrimSpace(coding)); coding {
		case "gzip", "x-gzip":
			return q > 0
		case "*":
			wildcard = q > 0
		}
	}
	return wildcard
}
