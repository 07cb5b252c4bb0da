package health

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func get(t *testing.T, h http.HandlerFunc) (int, answer) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return w.Code, a
}

func TestReadyFollowsTheNodesLife(t *testing.T) {
	s := New("n001", "1.2.3")
	expect := func(code int, status string) {
		t.Helper()
		got, a := get(t, s.Ready)
		if got != code || a.Status != status || len(a.Checks) != 1 || a.Checks[0].OK != (code == 200) || a.Checks[0].Reason == "" {
			t.Errorf("%d %+v, want %d %s and why", got, a, code, status)
		}
		if got, a := get(t, s.Live); got != 200 || a.Status != "alive" {
			t.Errorf("%d %+v, want 200 alive", got, a)
		}
	}
	expect(503, "starting")
	s.Serving()
	expect(200, "ready")
	left := 7
	s.Draining(func() int { return left })
	for ; left >= 0; left -= 7 {
		expect(503, "draining")
		if _, a := get(t, s.Ready); a.Connections == nil || *a.Connections != left {
			t.Errorf("%+v, want that %d connections are left", a, left)
		}
	}
	s.Stopping()
	expect(503, "stopping")
	if _, a := get(t, s.Ready); a.Connections != nil {
		t.Errorf("got %+v, want no connections after the drain", a)
	}
	s.Serving() // a late start does not make it ready again
	expect(503, "stopping")
}

func TestAnswersNameTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New("n001", "1.2.3")
		time.Sleep(90 * time.Second)
		if _, a := get(t, s.Live); a.Node != "n001" || a.Version != "1.2.3" || a.UptimeSeconds != 90 {
			t.Errorf("got %+v, want node n001, version 1.2.3 and 90 seconds", a)
		}
	})
}

// The public answer says only whether the node is ready.
func TestPublic(t *testing.T) {
	s := New("n001", "1.2.3")
	expect := func(code int, text string) {
		t.Helper()
		w := httptest.NewRecorder()
		s.Public(w, httptest.NewRequest("GET", "/healthz", nil))
		if w.Code != code || w.Body.String() != text || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%d %q %v, want %d %q", w.Code, w.Body, w.Header(), code, text)
		}
	}
	expect(503, "not ready\n")
	s.Serving()
	expect(200, "ready\n")
	s.Needs("redis", func() error { return errors.New("unreachable at 10.0.0.1") })
	expect(503, "not ready\n")
	s.Needs("redis", func() error { return nil })
	expect(200, "ready\n")
	s.Draining(func() int { return 3 })
	expect(503, "not ready\n")
}
