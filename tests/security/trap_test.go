package security

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// Secrets of the nodes.
const (
	jwtSecret     = "jwt-secret of the tests, long enough"
	clusterSecret = "cluster-secret of the tests, long enough"
	apiKey        = "api-key-of-the-tests-long-enough"
	otherAPIKey   = "other-api-key-of-the-tests"
)

// A trap is a node, or a cluster of them, with texts that must not be in their
// logs, metrics and answers. Its methods are safe for concurrent use.
type trap struct {
	t     *testing.T
	nodes []*nodetest.Node

	mu      sync.Mutex
	secrets map[string]string // what they are of
	heard   []string          // all answers, but for those to a CONNECT that is granted
}

// arm starts nodes with some variables: one alone, or some over one Redis. When
// the test ends and they have gone, no secret may have come out.
func arm(t *testing.T, nodes int, variables ...string) *trap {
	t.Helper()
	tr := &trap{t: t, secrets: map[string]string{
		jwtSecret: "the JWT secret", clusterSecret: "the cluster secret", apiKey: "an API key", otherAPIKey: "an API key",
	}}
	if nodes > 1 {
		variables = append(variables, "REJOIN_REDIS_URL="+redistest.Start(t).URL(), "REJOIN_CLUSTER_SECRET="+clusterSecret)
	}
	t.Cleanup(tr.check)
	for range nodes {
		n := start(t, variables...)
		tr.nodes = append(tr.nodes, n)
		t.Cleanup(func() {
			_, metrics := get(t, "http://"+n.Internal+"/metrics")
			tr.hear(metrics)
			for secret := range tr.secrets {
				n.Secret(secret)
			}
		})
	}
	for _, n := range tr.nodes {
		nodetest.Eventually(t, "the node is not ready", func() error {
			if status, body := get(t, "http://"+n.Internal+"/readyz"); status != http.StatusOK {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
	return tr
}

// keep makes a text a secret, and returns it.
func (tr *trap) keep(what, secret string) string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, part := range append(strings.Split(secret, "."), secret) { // as a token has them
		if len(part) > 20 && !strings.HasPrefix(part, "eyJhbGciOi") { // a header is nobody's
			tr.secrets[part] = what
		}
	}
	return secret
}

// hear records an answer, and returns it.
func (tr *trap) hear(answer string) string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.heard = append(tr.heard, answer)
	return answer
}

// check searches what was answered.
func (tr *trap) check() {
	for secret, what := range tr.secrets {
		for _, answer := range tr.heard {
			if strings.Contains(answer, secret) {
				tr.t.Errorf("%s stands in an answer: %.200s", what, answer)
			}
		}
	}
}

// A client is one that a test plays by hand. Its methods are for one goroutine.
type client struct {
	*trap
	ws      *websocket.Conn
	sid     string
	pid     string
	code    string // why it was refused; "" if it was not
	offset  string // of the last event
	events  []string
	lastAsk int
}

// enter connects to the main namespace with what a client says of itself, nil for
// nothing, and some headers.
func (tr *trap) enter(n *nodetest.Node, auth map[string]any, headers ...string) *client {
	tr.t.Helper()
	c, err := tr.knock(n, auth, headers...)
	if err != nil {
		tr.t.Fatal(err)
	}
	return c
}

// knock is enter for any goroutine.
func (tr *trap) knock(n *nodetest.Node, auth map[string]any, headers ...string) (*client, error) {
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+n.Addr+"/socket.io/?recovery=true&EIO=4&transport=websocket", h)
	if err != nil {
		return nil, err
	}
	tr.t.Cleanup(func() { ws.Close() })
	c, packet := &client{trap: tr, ws: ws}, "40"
	if auth != nil {
		payload, err := json.Marshal(auth)
		if err != nil {
			return nil, err
		}
		packet += string(payload)
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte(packet)); err != nil {
		return nil, err
	}
	var answer struct {
		SID, PID, Message string
		Data              struct{ Code string }
	}
	for {
		m, err := c.next()
		if err != nil {
			return nil, err
		}
		granted := strings.HasPrefix(m, "40")
		if granted || strings.HasPrefix(m, "44") {
			if err := json.Unmarshal([]byte(m[2:]), &answer); err != nil || granted == (answer.Message != "") {
				return nil, fmt.Errorf("a CONNECT is answered %s: %w", m, err)
			}
			c.sid, c.pid, c.code = answer.SID, answer.PID, answer.Data.Code
			return c, nil
		}
	}
}

// next returns the next message, and keeps what events there are.
func (c *client) next() (string, error) {
	for {
		_ = c.ws.SetReadDeadline(time.Now().Add(nodetest.Patience))
		_, m, err := c.ws.ReadMessage()
		if err != nil {
			return "", err
		}
		text := string(m)
		if text == "2" {
			if err := c.ws.WriteMessage(websocket.TextMessage, []byte("3")); err != nil {
				return "", err
			}
			continue
		}
		if !strings.HasPrefix(text, "40") {
			c.hear(text)
		}
		if event, ok := strings.CutPrefix(text, "42"); ok {
			var args []string
			if err := json.Unmarshal([]byte(event), &args); err != nil {
				return "", fmt.Errorf("%s: %w", text, err)
			}
			c.events, c.offset = append(c.events, args[0]), args[len(args)-1]
		}
		return text, nil
	}
}

// read is next for what must come.
func (c *client) read() string {
	c.t.Helper()
	text, err := c.next()
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// ask sends an event of strings and lists of them, and returns the code of its
// failure, "" if there is none.
func (c *client) ask(event ...any) (code string) {
	c.t.Helper()
	c.lastAsk++
	args, err := json.Marshal(event)
	if err != nil {
		c.t.Fatal(err)
	}
	write(c.t, c.ws, fmt.Sprintf("42%d%s", c.lastAsk, args))
	ack := fmt.Sprintf("43%d[", c.lastAsk)
	for {
		text, ok := strings.CutPrefix(c.read(), ack)
		if !ok {
			continue
		}
		var answer struct {
			OK            bool
			Code, Message string
		}
		if err := json.Unmarshal([]byte(strings.TrimSuffix(text, "]")), &answer); err != nil || answer.OK == (answer.Code != "" && answer.Message != "") {
			c.t.Fatalf("%v: %s", err, text)
		}
		return answer.Code
	}
}

// must is ask for what is permitted.
func (c *client) must(event ...any) {
	c.t.Helper()
	if code := c.ask(event...); code != "" {
		c.t.Fatalf("%v: %s", event, code)
	}
}

// hears returns all events that the client got since the last call, except its
// own.
func (c *client) hears() (events []string) {
	c.t.Helper()
	const own = "that is all "
	end := own + rand.Text() // a replay may bring an earlier one
	c.must("self", end)
	for len(c.events) == 0 || c.events[len(c.events)-1] != end {
		c.read()
	}
	events, c.events = c.events, nil
	return slices.DeleteFunc(events, func(name string) bool { return strings.HasPrefix(name, own) })
}

// leave closes the connection without a packet, as a client that will
// reconnect.
func (c *client) leave() { c.ws.Close() }
