package engineio

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// A session that Admit refuses is refused on both transports with its status, and no other
// hook is called.
func TestAdmitRefuses(t *testing.T) {
	busy := &BusyError{RetryAfter: 1500 * time.Millisecond, Message: "too many new connections"}
	var answer atomic.Pointer[error]
	refuse := func(err error) { answer.Store(&err) }
	asked := make(chan struct{}, 10)
	codes := make(chan int, 10)
	b := setUp(t, Options{
		Admit:        func(*http.Request) (func(), error) { return nil, *answer.Load() },
		AllowRequest: func(*http.Request) error { asked <- struct{}{}; return nil },
		OnRefused:    func(_ *http.Request, code int, _ string) { codes <- code },
	})
	for _, test := range []struct {
		err    error
		status int
		after  string
		code   int
		body   string
	}{
		{busy, 503, "2", -2, `{"code":-2,"message":"too many new connections"}`},
		{&BusyError{Status: 429, Message: "too many of yours"}, 429, "1", -2, `{"code":-2,"message":"too many of yours"}`},
		{errors.New("never"), 403, "", 4, `{"code":4,"message":"never"}`},
	} {
		refuse(test.err)
		res, body := b.do("GET", "", "")
		if res.StatusCode != test.status || res.Header.Get("Retry-After") != test.after || body != test.body || res.Close != (test.after != "") {
			t.Errorf("by polling: %s, Retry-After %q, closed %v: %s", res.Status, res.Header.Get("Retry-After"), res.Close, body)
		}
		_, res, err := b.tryDial("?EIO=4&transport=websocket")
		if err == nil || res == nil {
			t.Fatalf("by WebSocket: %v", err)
		}
		status := test.status
		if test.after == "" {
			status = http.StatusBadRequest // as the protocol has it
		}
		if text, _ := io.ReadAll(res.Body); res.StatusCode != status || res.Header.Get("Retry-After") != test.after || len(text) == 0 {
			t.Errorf("by WebSocket: %s, Retry-After %q: %s", res.Status, res.Header.Get("Retry-After"), text)
		}
		for range 2 {
			if code := receive(t, codes); code != test.code {
				t.Errorf("code %d, want %d", code, test.code)
			}
		}
	}
	if len(asked) > 0 {
		t.Error("AllowRequest was asked")
	}
	if n := b.Stats().Refused[-2]; n != 4 {
		t.Errorf("%d are counted as refused by Admit, want 4", n)
	}
}

// The function that Admit returns is called once for each session, for every kind of end,
// and for each session that is not created. Admit is not called for later requests of a
// session.
func TestAdmitReleasesOncePerSession(t *testing.T) {
	var begun, ended atomic.Int64
	b := setUp(t, Options{
		Admit: func(*http.Request) (func(), error) {
			begun.Add(1)
			return func() { ended.Add(1) }, nil
		},
		AllowRequest: func(r *http.Request) error {
			if r.URL.Query().Has("stranger") {
				return errors.New("go away")
			}
			return nil
		},
	})
	counts := func(wantBegun, wantEnded int64) {
		t.Helper()
		b.until(func() bool { return ended.Load() == wantEnded })
		if n := begun.Load(); n != wantBegun {
			t.Errorf("asked about %d sessions, want %d", n, wantBegun)
		}
	}
	sid := b.open()
	polled := receive(t, b.conns)
	b.post(sid, "4a")
	ws, _ := b.dialOpen()
	upgrading := b.open()
	receive(t, b.conns)
	b.upgrade(upgrading)
	counts(3, 0)
	_ = polled.Close(ForcedClose)
	counts(3, 0)
	b.poll(sid) // the close
	counts(3, 1)
	_ = ws.Close()
	counts(3, 2)

	for _, query := range []string{"?EIO=4&transport=polling&stranger", "?EIO=3&transport=polling"} {
		if res, _, err := b.raw("GET", "/engine.io/"+query, ""); err != nil || res.StatusCode < 400 {
			t.Errorf("%s: got %v, %v, want a refusal", query, res.Status, err)
		}
	}
	counts(5, 4)
	if res, _, err := b.raw("GET", "/engine.io/?EIO=4&transport=websocket", "", // a handshake without a key
		"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13"); err != nil || res.StatusCode != 400 {
		t.Errorf("got %v, %v, want 400", res.Status, err)
	}
	counts(6, 5)
	b.Refuse() // Admit is called first, and then the session is refused
	b.do("GET", "", "")
	counts(7, 6)
}
