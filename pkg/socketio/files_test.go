package socketio

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

// countingFS counts how often a file is opened.
type countingFS struct {
	fstest.MapFS
	opened int
}

func (c *countingFS) ReadFile(name string) ([]byte, error) {
	c.opened++
	return c.MapFS.ReadFile(name)
}

// The client's files are compressed for clients that accept it, once.
func TestClientFiles(t *testing.T) {
	script := []byte(strings.Repeat("socket.emit();\n", 1000))
	fsys := &countingFS{MapFS: fstest.MapFS{"socket.io.js": {Data: script}}}
	srv, err := NewServer(Options{Client: fsys})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close(t.Context())
	get := func(header ...string) (*http.Response, []byte) {
		r := httptest.NewRequest("GET", "/socket.io/socket.io.js", nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		return w.Result(), w.Body.Bytes()
	}
	etags := make(map[bool]string)
	for accept, compressed := range map[string]bool{
		"":                              false,
		"identity":                      false,
		"gzip":                          true,
		"br, deflate, GZIP":             true,
		"*":                             true,
		"gzip;q=0":                      false,
		"gzip;q=0, *":                   false,
		"br;q=1.0, gzip;q=0.5, *;q=0.1": true,
		"deflate":                       false,
	} {
		res, body := get("Accept-Encoding", accept)
		if (res.Header.Get("Content-Encoding") == "gzip") != compressed || !strings.Contains(res.Header.Get("Vary"), "Accept-Encoding") {
			t.Errorf("%q: %v", accept, res.Header)
		}
		if compressed {
			if len(body) > len(script)/10 {
				t.Errorf("%q: %d bytes, want at most %d", accept, len(body), len(script)/10)
			}
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(body, script) {
			t.Errorf("%q: another file", accept)
		}
		etag := res.Header.Get("ETag")
		if known := etags[compressed]; known != "" && known != etag {
			t.Errorf("%q: ETag %s, and %s before", accept, etag, known)
		}
		etags[compressed] = etag
		for _, condition := range []string{etag, "W/" + etag, `"other", ` + etag} {
			res, body := get("Accept-Encoding", accept, "If-None-Match", condition)
			if res.StatusCode != http.StatusNotModified || len(body) > 0 || res.Header.Get("Content-Encoding") != "" {
				t.Errorf("%q, If-None-Match %s: %s", accept, condition, res.Status)
			}
		}
	}
	if etags[true] == etags[false] {
		t.Error("both forms have the same ETag")
	}
	if res, _ := get("Accept-Encoding", "gzip", "If-None-Match", etags[false]); res.StatusCode != http.StatusOK {
		t.Errorf("the other form's ETag: %s", res.Status)
	}
	if fsys.opened != 1 {
		t.Errorf("read %d times, want 1", fsys.opened)
	}
}
