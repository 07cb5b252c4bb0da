package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// executeProbe runs the program with -probe and returns its exit code and
// output.
func executeProbe(t *testing.T, url string) (code int, said string) {
	t.Helper()
	var stdout, stderr strings.Builder
	code = run(t.Context(), t.Context(), nil, []string{"-probe", url}, &stdout, &stderr)
	return code, stdout.String() + stderr.String()
}

func TestProbe(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/no":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/elsewhere":
			http.Redirect(w, r, "/", http.StatusFound)
		}
	}))
	defer server.Close()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	t.Setenv("REJOIN_ADDR", "no address: a probe does not read the node's configuration")

	for _, test := range []struct {
		url  string
		code int
		says string
	}{
		{server.URL, exitOK, ""},
		{server.URL + "/no", exitFailure, "503 Service Unavailable"},
		{server.URL + "/elsewhere", exitFailure, "302 Found"},
		{"http://" + nobody.Addr().String(), exitFailure, "refused"},
		{"127.0.0.1:3001/readyz", exitFailure, "probe"},
		{"http://name:secret@" + nobody.Addr().String(), exitFailure, "refused"},
	} {
		code, said := executeProbe(t, test.url)
		if code != test.code || !strings.Contains(said, test.says) || strings.Contains(said, "secret") {
			t.Errorf("%s: exit code %d, %q", test.url, code, said)
		}
		if lines := strings.Count(said, "\n"); lines != code { // nothing, or one line
			t.Errorf("%s: %d lines: %q, want %d", test.url, lines, said, code)
		}
	}
}

// A probe of a node that accepts connections and does not answer fails.
func TestProbeOfASilentNode(t *testing.T) {
	t.Parallel() // it takes as long as a probe may
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if code, said := executeProbe(t, "http://"+silent.Addr().String()); code != exitFailure || !strings.Contains(said, "deadline exceeded") {
		t.Errorf(`exit code %d, %q, want %d, text with "deadline exceeded"`, code, said, exitFailure)
	}
}

func TestProbeOfANode(t *testing.T) {
	at, stop := startNode(t, nil)
	if code, said := executeProbe(t, "http://"+at.Internal+"/readyz"); code != exitOK {
		t.Errorf("exit code %d, %q, want %d", code, said, exitOK)
	}
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d, want %d", code, exitOK)
	}
}
