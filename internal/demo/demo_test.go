package demo

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, h http.Handler, method, url string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, url, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryFileHasItsHeaders(t *testing.T) {
	h := Handler("/socket.io/", false)
	files := load("/socket.io/", false)
	if len(files) < 5 {
		t.Fatalf("only %d files embedded, want at least 5", len(files))
	}
	for url := range files {
		want := contentTypes[path.Ext(url)]
		if url == "/" {
			want = "text/html; charset=utf-8"
		}
		r := get(t, h, http.MethodGet, url)
		if r.StatusCode != http.StatusOK || want == "" || r.Header.Get("Content-Type") != want {
			t.Errorf("GET %s: %s, Content-Type %q, want %q", url, r.Status, r.Header.Get("Content-Type"), want)
		}
		for name, value := range map[string]string{
			"X-Content-Type-Options":  "nosniff",
			"Cache-Control":           "no-cache",
			"Content-Security-Policy": policy,
		} {
			if got := r.Header.Get(name); got != value {
				t.Errorf("GET %s: %s %q, want %q", url, name, got, value)
			}
		}
		if body(t, r) == "" {
			t.Errorf("GET %s: empty", url)
		}
	}
}

func TestUnchangedFilesAreNotSentAgain(t *testing.T) {
	h := Handler("/socket.io/", false)
	for _, url := range []string{"/", "/demo/main.js"} {
		etag := get(t, h, http.MethodGet, url).Header.Get("Etag")
		if etag == "" {
			t.Fatalf("GET %s: no Etag", url)
		}
		for _, known := range []string{etag, "W/" + etag, `"other", ` + etag} {
			r := get(t, h, http.MethodGet, url, "If-None-Match", known)
			if r.StatusCode != http.StatusNotModified || body(t, r) != "" {
				t.Errorf("GET %s, If-None-Match %s: %s", url, known, r.Status)
			}
		}
		if r := get(t, h, http.MethodGet, url, "If-None-Match", `"other"`); r.StatusCode != http.StatusOK {
			t.Errorf("GET %s with another Etag: %s", url, r.Status)
		}
	}
}

func TestEtagFollowsContent(t *testing.T) {
	a := get(t, Handler("/socket.io/", false), http.MethodGet, "/").Header.Get("Etag")
	b := get(t, Handler("/ws/", false), http.MethodGet, "/").Header.Get("Etag")
	if a == b {
		t.Errorf("two pages share the Etag %s", a)
	}
}

func TestHeadHasNoBody(t *testing.T) {
	h := Handler("/socket.io/", false)
	full := body(t, get(t, h, http.MethodGet, "/"))
	r := get(t, h, http.MethodHead, "/")
	if r.StatusCode != http.StatusOK || r.ContentLength != int64(len(full)) || body(t, r) != "" {
		t.Errorf("HEAD /: %s, Content-Length %d of %d", r.Status, r.ContentLength, len(full))
	}
}

func TestRefusals(t *testing.T) {
	h := Handler("/socket.io/", false)
	for _, c := range []struct {
		method, url string
		status      int
	}{
		{http.MethodPost, "/", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/demo/main.js", http.StatusMethodNotAllowed},
		{http.MethodOptions, "/", http.StatusMethodNotAllowed},
		{http.MethodGet, "/index.html", http.StatusNotFound},
		{http.MethodGet, "/demo/", http.StatusNotFound},
		{http.MethodGet, "/demo/index.html", http.StatusNotFound},
		{http.MethodGet, "/demo/../demo.go", http.StatusNotFound},
		{http.MethodGet, "/favicon.ico", http.StatusNotFound},
		{http.MethodPost, "/elsewhere", http.StatusNotFound},
	} {
		r := get(t, h, c.method, c.url)
		if r.StatusCode != c.status {
			t.Errorf("%s %s: %s, want %d", c.method, c.url, r.Status, c.status)
		}
		if allow := r.Header.Get("Allow"); (allow == "GET, HEAD") != (c.status == http.StatusMethodNotAllowed) {
			t.Errorf("%s %s: Allow %q", c.method, c.url, allow)
		}
	}
}

func TestPageLoadsTheClientFromTheNodesPath(t *testing.T) {
	for socketPath, want := range map[string]string{
		"/socket.io/": `src="/socket.io/socket.io.js"`,
		"/chat":       `src="/chat/socket.io.js"`,
		`/"><b>/`:     `src="/&#34;&gt;&lt;b&gt;/socket.io.js"`,
	} {
		page := body(t, get(t, Handler(socketPath, false), http.MethodGet, "/"))
		if !strings.Contains(page, want) || strings.Contains(page, "{{") {
			t.Errorf("path %s: the page lacks %s", socketPath, want)
		}
	}
}

// A browser silently refuses parts that the policy forbids.
func TestPageKeepsItsOwnPolicy(t *testing.T) {
	h := Handler("/socket.io/", false)
	index := body(t, get(t, h, http.MethodGet, "/"))
	for what, inline := range map[string]string{
		"an inline script":  `<script[^>]*>[^<]`,
		"an inline style":   `<style|\sstyle=`,
		"an inline handler": `\son[a-z]+=`,
		"a foreign host":    `(src|href)="(https?:)?//`,
	} {
		if found := regexp.MustCompile(inline).FindString(index); found != "" {
			t.Errorf("the page has %s: %s, want nothing", what, found)
		}
	}
	for _, ref := range regexp.MustCompile(`(?:src|href)="(/demo/[^"]+)"`).FindAllStringSubmatch(index, -1) {
		if r := get(t, h, http.MethodGet, ref[1]); r.StatusCode != http.StatusOK {
			t.Errorf("the page refers to %s: %s", ref[1], r.Status)
		}
	}
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(`)
	for url, f := range load("/socket.io/", false) {
		if found := markup.Find(f.body); strings.HasSuffix(url, ".js") && found != nil {
			t.Errorf("%s makes markup from strings: %s", url, found)
		}
		for _, ref := range regexp.MustCompile(`from "\./([^"]+)"`).FindAllSubmatch(f.body, -1) {
			if r := get(t, h, http.MethodGet, "/demo/"+string(ref[1])); r.StatusCode != http.StatusOK {
				t.Errorf("%s imports %s: %s", url, ref[1], r.Status)
			}
		}
	}
}
