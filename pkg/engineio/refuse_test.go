package engineio

import (
	"net/http"
	"testing"
)

func TestRefuseKeepsExistingSessions(t *testing.T) {
	codes := make(chan int, 10)
	b := setUp(t, Options{OnRefused: func(_ *http.Request, code int, _ string) { codes <- code }})
	polled, upgraded := b.open(), b.open()
	receive(t, b.conns)
	receive(t, b.conns)
	b.Refuse()

	res, _ := b.do("GET", "", "")
	if res.StatusCode != http.StatusServiceUnavailable || !res.Close {
		t.Errorf("a handshake by polling: %s, the TCP connection is closed: %v", res.Status, res.Close)
	}
	if _, res, err := b.tryDial("?EIO=4&transport=websocket"); err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a handshake by WebSocket: %v", err)
	}

	if n := b.Stats().Refused[-1]; n != 2 || receive(t, codes) != -1 || receive(t, codes) != -1 {
		t.Errorf("%d are counted as turned away", n)
	}

	b.post(polled, "4a")
	b.gets("a", false)
	ws := b.upgrade(upgraded)
	b.write(ws, "4b")
	b.gets("b", false)
	if st := b.Stats(); st.Opened != 2 || st.Polling != 1 || st.WebSocket != 1 {
		t.Errorf("got %+v, want 2 opened, one of each transport", st)
	}
}

// A polling client that is told to retry uses another TCP connection, which a load balancer
// can send to another server.
func TestRefuseFreesTheTCPConnection(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	b.Refuse()
	_ = c.Send(Text([]byte("a")))
	if res, body := b.do("GET", sid, ""); body != "4a" || res.Close {
		t.Errorf("a poll: %q, the TCP connection is closed: %v", body, res.Close)
	}
	_ = c.Send(Text([]byte("b")))
	_ = c.Close(ForcedClose)
	if body := b.poll(sid); body != "4b" {
		t.Errorf(`what is left: %q, want "4b"`, body)
	}
	if res, body := b.do("GET", sid, ""); body != "1" || !res.Close {
		t.Errorf("the last poll: %q, the TCP connection is closed: %v", body, res.Close)
	}
	b.unknown(sid)
}
