package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A claimant is a connection that presents a private id and records the answer.
type claimant struct {
	ws     *websocket.Conn
	closed chan struct{}
	mu     sync.Mutex
	frames []string
}

func claimAt(t *testing.T, url, auth string) *claimant {
	t.Helper()
	url = strings.Replace(url, "http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket&recovery=true"
	ws, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &claimant{ws: ws, closed: make(chan struct{})}
	go func() { // until the connection is closed
		defer close(c.closed)
		for {
			_, m, err := ws.ReadMessage()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.frames = append(c.frames, string(m))
			c.mu.Unlock()
		}
	}()
	if err := ws.WriteMessage(websocket.TextMessage, []byte("40"+auth)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *claimant) cut() {
	c.ws.Close()
	<-c.closed
}

// got returns the first frame with a prefix, or "".
func (c *claimant) got(prefix string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.frames {
		if strings.HasPrefix(f, prefix) {
			return f
		}
	}
	return ""
}

func (c *claimant) await(t *testing.T, prefix string) string {
	t.Helper()
	var frame string
	eventually(t, "no "+prefix, func() error {
		if frame = c.got(prefix); frame == "" {
			c.mu.Lock()
			defer c.mu.Unlock()
			return fmt.Errorf("got %q", c.frames)
		}
		return nil
	})
	return frame
}

// TestConcurrentClaimsOverRedis: several connections present one private id to one,
// two or three nodes concurrently. One of them is recovered, the others are closed,
// and the client is served on and can be recovered again.
func TestConcurrentClaimsOverRedis(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	var servers []*socketio.Server
	var urls []string
	var told atomic.Int32
	for i := range 3 {
		srv, front := nodeOver(t, redis, adapter.NodeID(fmt.Sprint("node", i)))
		srv.OnConnect(func(s *socketio.Socket) { s.OnDisconnect(func(socketio.Reason) { told.Add(1) }) })
		servers, urls = append(servers, srv), append(urls, front.url())
	}
	for _, nodes := range []int{1, 2, 3} {
		for range lasting(100, 30) {
			claimOnce(t, servers[:nodes], urls[:nodes], &told)
			if t.Failed() {
				return
			}
		}
	}
}

func claimOnce(t *testing.T, servers []*socketio.Server, urls []string, told *atomic.Int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	emit := func(n int) {
		t.Helper()
		if err := servers[0].Emit(ctx, "n", n); err != nil {
			t.Fatal(err)
		}
	}
	once := func() error {
		if !told.CompareAndSwap(1, 0) {
			return fmt.Errorf("OnDisconnect was called %d times", told.Load())
		}
		return nil
	}
	first := claimAt(t, urls[0], "")
	var is struct{ SID, PID string }
	if err := json.Unmarshal([]byte(first.await(t, "40{")[2:]), &is); err != nil {
		t.Fatal(err)
	}
	emit(0)
	event := first.await(t, `42["n",0,`)
	auth := fmt.Sprintf(`{"pid":%q,"offset":%s}`, is.PID, strings.TrimSuffix(strings.TrimPrefix(event, `42["n",0,`), "]"))
	emit(1) // which the claims miss; whether the first connection gets it does not matter
	var claims [3]*claimant
	var opening sync.WaitGroup
	for i := range claims {
		opening.Go(func() { claims[i] = claimAt(t, urls[i%len(urls)], auth) })
	}
	opening.Wait()
	all := append(claims[:], first)
	var left *claimant
	eventually(t, "not one connection is left", func() error {
		open := 0
		for _, c := range all {
			select {
			case <-c.closed:
			default:
				left = c
				open++
			}
		}
		if open != 1 {
			return fmt.Errorf("%d are open", open)
		}
		return nil
	})
	if left == first {
		t.Fatal("the old connection is left")
	}
	if connect := left.await(t, "40{"); !strings.Contains(connect, is.SID) {
		t.Fatalf("not recovered: %s, want %s", connect, is.SID)
	}
	left.await(t, `42["n",1,`)
	emit(2)
	left.await(t, `42["n",2,`)
	for _, c := range all {
		if c != left && c.got(`42["n",2,`) != "" {
			t.Error("another connection was served, too")
		}
	}
	eventually(t, "not one socket is connected", func() error {
		total := 0
		for _, srv := range servers {
			total += srv.Len()
		}
		if total != 1 {
			return fmt.Errorf("%d sockets are connected", total)
		}
		return nil
	})
	if n := told.Load(); n > 0 {
		t.Errorf("OnDisconnect was called %d times for a client that is served", n)
	}
	left.cut()
	eventually(t, "no OnDisconnect after a cut", once)
	back := claimAt(t, urls[len(urls)-1], auth)
	if connect := back.await(t, "40{"); !strings.Contains(connect, is.SID) {
		t.Fatalf("the survivor is not recovered: %s", connect)
	}
	if err := back.ws.WriteMessage(websocket.TextMessage, []byte("41")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no OnDisconnect after DISCONNECT", once)
	back.cut()
}
