package socketio

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// A socket that is evicted in the middle of its replay sends nothing more, although
// its connection stays open for the client's other namespace; and that connection is
// closed when the client has not claimed the other session either.
func TestEvictionEndsTheReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer(Options{})
		must(t, err)
		srv.Of("/other")
		l := newPipeListener()
		web := &http.Server{Handler: srv}
		go func() { _ = web.Serve(l) }() // until web is closed
		defer func() {
			must(t, srv.Close(context.Background()))
			must(t, web.Close())
		}()
		dial := func() *websocket.Conn {
			t.Helper()
			d := websocket.Dialer{NetDialContext: l.dial}
			ws, _, err := d.Dial("ws://node/socket.io/?EIO=4&transport=websocket&recovery=true", nil)
			must(t, err)
			return ws
		}
		next := func(ws *websocket.Conn, want string) string {
			t.Helper()
			_, m, err := ws.ReadMessage()
			if err != nil || !strings.HasPrefix(string(m), want) {
				t.Fatalf("got %q, %v; want %s", m, err, want)
			}
			return string(m)
		}
		write := func(ws *websocket.Conn, text string) {
			t.Helper()
			must(t, ws.WriteMessage(websocket.TextMessage, []byte(text)))
			synctest.Wait()
		}
		first := dial()
		next(first, "0")
		write(first, "40")
		connect := next(first, "40{")
		pid := strings.TrimSuffix(connect[strings.Index(connect, `"pid":"`)+7:], `"}`)
		must(t, first.NetConn().Close())
		synctest.Wait()
		const events = 20
		for i := range events {
			must(t, srv.Emit(t.Context(), "n", i, strings.Repeat("x", 20_000)))
		}

		loser := dial()
		next(loser, "0")
		write(loser, "40/other,")
		next(loser, "40/other,")
		write(loser, fmt.Sprintf(`40{"pid":%q}`, pid))
		next(loser, "40{") // and stops reading: the replay waits for it
		winner := dial()
		next(winner, "0")
		write(winner, fmt.Sprintf(`40{"pid":%q}`, pid))
		next(winner, "40{")
		for i := range events {
			next(winner, fmt.Sprintf(`42["n",%d,`, i))
		}
		begun, received := time.Now(), 0
		for {
			_, m, err := loser.ReadMessage()
			if err != nil {
				break
			}
			if strings.HasPrefix(string(m), `42["n",`) {
				received++
			}
			if string(m) == "2" {
				write(loser, "3")
			}
		}
		if received > events/2 {
			t.Errorf("the evicted socket sent %d of %d events, want at most %d", received, events, events/2)
		}
		if took := time.Since(begun); took != recoverTimeout {
			t.Errorf("its connection was closed after %v, want %v", took, recoverTimeout)
		}
		must(t, winner.Close())
		must(t, loser.Close())
	})
}

// The connection of an evicted socket is forgotten soon also if its client never polls again, as one
// that noticed first that the connection is lost.
func TestEvictedPollingClientThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer(Options{})
		must(t, err)
		defer func() { must(t, srv.Close(context.Background())) }()
		former, connected := srv.connectByPolling("")
		pid := between(connected, `"pid":"`)
		if _, again := srv.connectByPolling(fmt.Sprintf(`{"pid":%q}`, pid)); pid == "" || between(again, `"pid":"`) != pid {
			t.Fatalf("%s was not recovered: %s", connected, again)
		}
		time.Sleep(leaveTimeout + time.Second)
		if status, answer := srv.exchange("GET", former, ""); status != http.StatusBadRequest {
			t.Errorf("the former connection still exists: %d %s", status, answer)
		}
	})
}

// exchange serves one polling request without a network.
func (s *Server) exchange(method, session, body string) (status int, answer string) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, "/socket.io/?EIO=4&transport=polling&recovery=true"+session, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

// connectByPolling connects a client, and returns the part of its URLs that names its session, and the
// answer.
func (s *Server) connectByPolling(auth string) (session, connected string) {
	_, open := s.exchange("GET", "", "")
	session = "&sid=" + between(open, `"sid":"`)
	s.exchange("POST", session, "40"+auth)
	_, connected = s.exchange("GET", session, "")
	return session, connected
}

// between returns what follows start, up to a quotation mark.
func between(s, start string) string {
	_, s, _ = strings.Cut(s, start)
	s, _, _ = strings.Cut(s, `"`)
	return s
}
