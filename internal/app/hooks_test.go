package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/hooks"
	"github.com/rejoin-io/rejoin/pkg/session"
)

const hookSecret = "whsec_dGhlIHNlY3JldCBvZiB0aGVzZSB0ZXN0cywgbG9uZyE="

// A judgement is a backend that answers each question whether a client may connect with a text.
type judgement struct {
	mu     sync.Mutex
	answer string
	asked  []string // bodies
}

func (j *judgement) says(answer string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.answer = answer
}

func (j *judgement) questions() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.asked)
}

// judging returns the application's settings for a backend that gives an answer.
func judging(t *testing.T, answer string) (*judgement, Hooks) {
	t.Helper()
	j := &judgement{answer: answer}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		j.mu.Lock()
		defer j.mu.Unlock()
		j.asked = append(j.asked, string(body))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, j.answer)
	}))
	b, err := hooks.New(hooks.Options{URL: web.URL, Secrets: []string{hookSecret}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close(); web.Close() })
	return j, Hooks{Backend: b, Connect: true, Default: auth.Permissions{Join: []string{"default"}}}
}

// agingStore shows sessions that have been left for some time.
type agingStore struct {
	*session.Memory
	age atomic.Int64
}

func (s *agingStore) Peek(ctx context.Context, pid string) (session.Session, time.Duration, error) {
	sn, left, err := s.Memory.Peek(ctx, pid)
	return sn, left - time.Duration(s.age.Load()), err
}

// A visitor is a client that recovers, in its connections one after the other.
type visitor struct {
	*rawClient
	pid, sid string
}

// visit connects, with the members of a payload beside the private id.
func (v *visitor) visit(t *testing.T, url, payload string) (recovered bool) {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial(url+"/socket.io/?EIO=4&transport=websocket&recovery=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	v.rawClient = &rawClient{T: t, Conn: ws}
	v.next()
	if v.pid != "" {
		payload += fmt.Sprintf(`,"pid":%q`, v.pid)
	}
	v.write("40{" + payload + "}")
	var body struct{ SID, PID string }
	if text := v.next(); json.Unmarshal([]byte(strings.TrimPrefix(text, "40")), &body) != nil {
		t.Fatalf("CONNECT was answered %s", text)
	}
	recovered = body.SID == v.sid
	v.pid, v.sid = body.PID, body.SID
	return recovered
}

// TestVerdictIsUsedAgain: a client that reconnects within the time that the backend has stated, with the
// same credentials, is not asked about; any other is.
func TestVerdictIsUsedAgain(t *testing.T) {
	const period = 30 * time.Second // of refreshing sessions
	for name, test := range map[string]struct {
		answer  string
		away    time.Duration
		payload string // of the second connection
		asks    bool
	}{
		"soon":                    {`{"user":"ann","good":60}`, 0, `"a":1`, false},
		"just in time":            {`{"user":"ann","good":60}`, time.Minute + period/2, `"a":1`, false},
		"too late":                {`{"user":"ann","good":60}`, time.Minute + period + time.Second, `"a":1`, true},
		"not good":                {`{"user":"ann"}`, 0, `"a":1`, true},
		"zero":                    {`{"user":"ann","good":0}`, 0, `"a":1`, true},
		"longer than the session": {`{"user":"ann","good":86400}`, 2 * time.Minute, `"a":1`, false},
		"not expired":             {fmt.Sprintf(`{"user":"ann","good":60,"expires":%d}`, time.Now().Unix()+1000), 0, `"a":1`, false},
		"other credentials":       {`{"user":"ann","good":60}`, 0, `"a":2`, true},
		"another token":           {`{"user":"ann","good":60}`, 0, `"a":1,"token":"x"`, true}, // which nobody has verified
		"without a user":          {`{"good":60}`, 0, `"a":1`, false},
	} {
		t.Run(name, func(t *testing.T) {
			j, h := judging(t, test.answer)
			store := &agingStore{Memory: session.NewMemory()}
			_, _, url := serveWith(t, Options{Hooks: h}, store)
			v := &visitor{}
			v.visit(t, url, `"a":1`)
			v.Close()
			store.age.Store(int64(test.away))
			j.says(`{"user":"ann"}`)
			if name == "without a user" {
				j.says(`{}`)
			}
			if !v.visit(t, url, test.payload) {
				t.Error("not recovered")
			}
			if got := j.questions() - 1; (got == 1) != test.asks {
				t.Errorf("%d further questions, want one: %v", got, test.asks)
			}
		})
	}
}

// TestVerdictPermissions: the verdict's permissions apply, and without any the default. A client without
// a user is in no user's room.
func TestVerdictPermissions(t *testing.T) {
	j, h := judging(t, `{"can":{"join":["a"]}}`)
	_, srv, url := serveApp(t, Options{Hooks: h})
	for answer, rooms := range map[string]map[string]bool{
		`{"can":{"join":["a"]}}`: {"a": true, "default": false},
		`{}`:                     {"a": false, "default": true},
	} {
		j.says(answer)
		c := dialApp(t, url)
		for room, may := range rooms {
			if r, _ := c.call(fmt.Sprintf(`["join",%q]`, room)); r.OK != may {
				t.Errorf("%s: join %s: %+v, want %v", answer, room, r, may)
			}
		}
	}
	sockets, err := srv.Of("/").FetchSockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sockets {
		for _, room := range s.Rooms {
			if strings.HasPrefix(room, "user:") {
				t.Errorf("a client without a user is in %q", room)
			}
		}
	}
}

// TestVerdictExpires: a connection ends when its verdict expires, and the client is asked about again.
func TestVerdictExpires(t *testing.T) {
	j, h := judging(t, fmt.Sprintf(`{"user":"ann","good":60,"expires":%d}`, time.Now().Unix()+2))
	_, _, url := serveApp(t, Options{Hooks: h})
	v := &visitor{}
	v.visit(t, url, `"a":1`)
	_ = v.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := v.ReadMessage(); err == nil {
		t.Fatal("the connection is still open")
	}
	j.says(`{"user":"ann"}`)
	if !v.visit(t, url, `"a":1`) || j.questions() != 2 {
		t.Errorf("%d questions, want 2, and a recovery", j.questions())
	}
}

// TestVerdictBesideToken: with tokens the verdict adds rooms, its permissions prevail, and it must not
// name another user. A fresh token changes none of that, and needs no question.
func TestVerdictBesideToken(t *testing.T) {
	const secret = "the secret of these tests' tokens"
	verifier, err := auth.New(auth.Options{Secret: []byte(secret)})
	if err != nil {
		t.Fatal(err)
	}
	user := "ann"
	token := func(room string) string {
		text, err := auth.Sign(auth.Options{Secret: []byte(secret)}, fmt.Sprintf(`{"sub":%q,"rejoin":{"rooms":[%q],"can":{"join":["t"]}}}`, user, room))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	j, h := judging(t, `{"rooms":["v"],"can":{"join":["w"]},"good":60}`)
	_, srv, url := serveApp(t, Options{Verifier: verifier, Hooks: h})
	v := &visitor{}
	v.visit(t, url, fmt.Sprintf(`"token":%q`, token("one")))
	if r, _ := v.call(`["join","w"]`); !r.OK {
		t.Errorf("join w: %+v", r)
	}
	if r, _ := v.call(`["join","t"]`); r.Code != forbidden {
		t.Errorf("join t: %+v", r)
	}
	if r, _ := v.call(fmt.Sprintf(`["token",%q]`, token("two"))); !r.OK {
		t.Errorf("token: %+v", r)
	}
	want := "[two user:ann v w]"
	if s := srv.Of("/").Socket(v.sid); s == nil || fmt.Sprint(s.Rooms()) != want || s.User() != "ann" {
		t.Errorf("the socket %+v, want in %s", s, want)
	}
	v.Close()
	if !v.visit(t, url, fmt.Sprintf(`"token":%q`, token("two"))) || j.questions() != 1 {
		t.Errorf("%d questions, want 1, and a recovery", j.questions())
	}
	if !strings.Contains(j.asked[0], `"user":"ann"`) {
		t.Errorf("the question %s", j.asked[0])
	}
	v.Close()
	user = "eve"
	if v.visit(t, url, fmt.Sprintf(`"token":%q`, token("one"))) || j.questions() != 2 {
		t.Errorf("%d questions after another user has come, want 2, and no recovery", j.questions())
	}
	user = "ann"
	j.says(`{"user":"bob"}`)
	w := &visitor{}
	ws, _, err := websocket.DefaultDialer.Dial(url+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	w.rawClient = &rawClient{T: t, Conn: ws}
	w.next()
	w.write(fmt.Sprintf(`40{"token":%q}`, token("one")))
	_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, text, err := ws.ReadMessage(); err == nil {
		t.Errorf("with a verdict about another user: %s", text)
	}
}

// TestBackendLearnsNoPrivateID: the private id of a session is the client's alone.
func TestBackendLearnsNoPrivateID(t *testing.T) {
	for payload, want := range map[string]string{
		``: ``, `{}`: `{}`,
		`{"pid":"secret","offset":"x","recovery":true}`: `{}`,
		`{"a":1,"pid":"secret","b":{"pid":"mine"}}`:     `{"a":1,"b":{"pid":"mine"}}`,
		`{"\u0070id":"secret","x":"\u00e9"}`:            `{"x":"\u00e9"}`,
	} {
		if got := string(withoutSession(json.RawMessage(payload))); got != want {
			t.Errorf("%s: got %s, want %s", payload, got, want)
		}
	}
}

func TestHandles(t *testing.T) {
	h := Hooks{Events: []string{"order:*", "to", "*x"}}
	for name, want := range map[string]bool{"order:": true, "order:a": true, "order": false, "to": true, "join": false, "x": false, "*x": true} {
		_, known := requests[name]
		if got := h.handles(name, known); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if all := (&Hooks{Events: []string{"*"}}); !all.handles("x", false) || all.handles("to", true) {
		t.Error("* must match the events that nobody else knows")
	}
}
