package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const moveKey = "the-key-of-the-backend"

// A scriptedBackend answers questions with a status, once it has one.
type scriptedBackend struct {
	URL    string
	status atomic.Int32
	ready  chan struct{}
}

func newScriptedBackend(t *testing.T) *scriptedBackend {
	b := &scriptedBackend{ready: make(chan struct{})}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		select {
		case <-b.ready:
			w.WriteHeader(int(b.status.Load()))
		case <-q.Context().Done():
		}
	}))
	t.Cleanup(web.Close)
	b.URL = web.URL
	return b
}

func (b *scriptedBackend) answer(status int) {
	if b.status.Swap(int32(status)) == 0 {
		close(b.ready)
	}
}

// client opens a WebSocket that is connected to the main namespace, sends a packet if it is not empty,
// and waits for the answer.
func (r *moves) client(n *drainable, p string) *websocket.Conn {
	r.Helper()
	ws := n.webSocket("")
	r.talk(ws, "", "0", "40", "40")
	if p != "" {
		r.talk(ws, p, "4")
	}
	return ws
}

// talk alternately sends a packet and waits for one that begins with a text; "" omits a turn. It returns
// the last packet.
func (r *moves) talk(ws *websocket.Conn, turns ...string) (last string) {
	r.Helper()
	for i, text := range turns {
		switch {
		case text == "":
		case i%2 == 0:
			if err := ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
				r.Fatal(err)
			}
		default:
			_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, p, err := ws.ReadMessage()
			if last = string(p); err != nil || !strings.HasPrefix(last, text) {
				r.Fatalf("got %q, %v, want a packet that begins with %q", last, err, text)
			}
		}
	}
	return last
}

// left returns the packet with which a client recovers that has missed an event in a room.
func (r *moves) left(room string) string {
	r.Helper()
	ws := r.near.webSocket("")
	connected := r.talk(ws, "", "0", "40", "40")
	_, pid, _ := strings.Cut(connected, `"pid":"`)
	pid, _, _ = strings.Cut(pid, `"`)
	r.talk(ws, `420["join","`+room+`"]`, "43")
	r.emit(r.near, room, 1)
	event := r.talk(ws, "", "42")
	offset := event[strings.LastIndex(event, `,"`)+2 : len(event)-2]
	ws.Close()
	r.await("the socket is disconnected", func() bool { return !r.hasMembers(room) })
	r.emit(r.near, room, 1)
	return fmt.Sprintf(`40{"pid":%q,"offset":%q}`, pid, offset)
}

// handshake opens a polling session that is not connected to a namespace.
func (r *moves) handshake() (url string) {
	r.Helper()
	url = "http://" + r.near.Addr + "/socket.io/?EIO=4&transport=polling"
	_, answer := fetch(r.T, url)
	_, sid, _ := strings.Cut(answer, `"sid":"`)
	sid, _, _ = strings.Cut(sid, `"`)
	return url + "&sid=" + sid
}

func (r *moves) path(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	return rest[strings.Index(rest, "/"):]
}

// api calls the API of a node.
func (r *moves) api(n *drainable, method, call, body string) (int, string) {
	r.Helper()
	q, err := http.NewRequestWithContext(r.Context(), method, "http://"+n.Internal+"/api/v1/"+call, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+moveKey)
	q.Header.Set("Content-Type", "application/json")
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(q)
	if err != nil {
		r.Fatal(err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		r.Fatal(err)
	}
	return answer.StatusCode, string(said)
}

func (r *moves) emit(n *drainable, room string, size int) {
	r.Helper()
	body := fmt.Sprintf(`{"rooms":[%q],"event":"x","args":[%q]}`, room, strings.Repeat("x", size))
	if status, said := r.api(n, http.MethodPost, "emit", body); status != http.StatusOK {
		r.Fatalf("emit: %d %s", status, said)
	}
}

// emitAnyhow emits an event that Redis may refuse.
func (r *moves) emitAnyhow(n *drainable, room string, volatile bool) {
	r.Helper()
	r.api(n, http.MethodPost, "emit", fmt.Sprintf(`{"rooms":[%q],"event":"x","args":[],"volatile":%t}`, room, volatile))
}

func (r *moves) hasMembers(room string) bool {
	r.Helper()
	_, said := r.api(r.near, http.MethodGet, "members?room="+room, "")
	return strings.Contains(said, `"id"`)
}

func (r *moves) awaitMembers(room string) {
	r.Helper()
	r.await("the room has a member", func() bool { return r.hasMembers(room) })
}

func (r *moves) await(what string, done func() bool) {
	r.Helper()
	for end := time.Now().Add(15 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("timed out: %s", what)
		}
	}
}

// base begins the names of the cluster's keys and channels in the present history.
func (r *moves) base() string {
	r.Helper()
	epoch, err := r.redis.Client().Get(r.Context(), "rejoin:{0}epoch").Result()
	if err != nil {
		r.Fatal(err)
	}
	return "rejoin:{0}" + epoch + ":"
}

func (r *moves) publish(channel, message string) {
	r.Helper()
	r.await("a node is subscribed to "+channel, func() bool {
		n, err := r.redis.Client().Publish(r.Context(), channel, message).Result()
		return n > 0 && err == nil
	})
}

// scrape returns a node's samples, without the prefix, and the sums over the labels of each metric. A
// histogram has a sum and a count.
func (r *moves) scrape(n *drainable) map[string]float64 {
	r.Helper()
	_, text := fetch(r.T, "http://"+n.Internal+"/metrics")
	all := make(map[string]float64)
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		value := lines.Text()[strings.LastIndex(lines.Text(), " ")+1:]
		sample, ours := strings.CutPrefix(strings.TrimSuffix(lines.Text(), " "+value), "rejoin_")
		v, err := strconv.ParseFloat(value, 64)
		if !ours || err != nil {
			continue
		}
		name, _, labelled := strings.Cut(sample, "{")
		if all[name] += v; labelled {
			all[sample] = v
		}
	}
	return all
}
