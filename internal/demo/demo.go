// Package demo serves a page that demonstrates recovery: a small chat on the node's built-in
// application, with buttons that cut its own connection.
package demo

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"html"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed page
var page embed.FS

// The policy allows only the parts of the page, all of them from this host. Trusted types make a
// browser that supports them refuse to turn a string into markup: users' messages stay text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// Listed here because the system's own table of types differs between machines, and browsers refuse
// a module of the wrong type.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

type file struct {
	contentType string
	etag        string
	body        []byte
}

// Handler serves the page at / and its parts under /demo/; any other path is not found. socketPath
// is the node's Socket.IO path, such as "/socket.io/": the page loads the client from there and
// connects to it. If the node requires tokens the page asks for one.
func Handler(socketPath string, wantsToken bool) http.Handler {
	files := load(strings.TrimSuffix(socketPath, "/")+"/", wantsToken)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, found := files[r.URL.Path]
		if !found {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		h.Set("Content-Type", f.contentType)
		h.Set("Etag", f.etag)
		h.Set("Cache-Control", "no-cache") // cached, but revalidated each time
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
	})
}

// load returns the page's files by URL path.
func load(socketPath string, wantsToken bool) map[string]file {
	entries, err := page.ReadDir("page")
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	files := make(map[string]file, len(entries))
	for _, e := range entries {
		body, err := page.ReadFile("page/" + e.Name())
		if err != nil {
			panic(err)
		}
		url := "/demo/" + e.Name()
		if e.Name() == "index.html" {
			url = "/"
			body = bytes.ReplaceAll(body, []byte("{{socketPath}}"), []byte(html.EscapeString(socketPath)))
			body = bytes.ReplaceAll(body, []byte("{{wantsToken}}"), strconv.AppendBool(nil, wantsToken))
		}
		files[url] = file{
			contentType: contentTypes[path.Ext(e.Name())],
			etag:        fmt.Sprintf(`"%x"`, sha256.Sum256(body)),
			body:        body,
		}
	}
	return files
}
