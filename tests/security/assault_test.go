package security

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/tests/nodetest"
)

// An attack is one row of TestAttacks. Its functions are called by each of the attacking
// connections, concurrently.
type attack struct {
	name      string
	variables []string
	rounds    int // of a short run, for each connection

	// hold takes what it takes, as fast as it can: a client has hours for it. May be nil.
	hold func(a *assault, conn int)
	// work is repeated from then on, at the rate of the line. May be nil.
	work func(a *assault, conn int)
	// check looks at the node while the attackers hold what they have. May be nil.
	check func(a *assault)
	// proxied: the attackers' addresses are known, from a header.
	proxied bool
}

// What an attack may cost, with default limits and GOMEMLIMIT=256MiB.
const (
	mostMemory      = 300 << 20 // resident, in a long run
	mostSlowdown    = 5         // of a neighbour's p99, in a long run
	mostHealthDelay = time.Second
	mostRedisBytes  = 20  // in and out of Redis, for each byte of the attackers
	mostRedisMemory = 20  // that Redis keeps for each byte of the attackers
	mostLogBytes    = 0.5 // for each byte of the attackers
)

// What a long run has, and a short one.
const (
	attackers, shortAttackers = 30, 3
	lineRate                  = 125_000 // bytes in a second: 1 Mbit/s, for all attackers together
	quietTime, attackTime     = 3, 5    // seconds
	// shortMemory is what a short run may take from the system beside the race detector.
	shortMemory = 96 << 20
	// restingRedis is what a node without clients moves in Redis during a short run, and what
	// connections move once.
	restingRedis = 256 << 10
	restingLog   = 64 << 10
	// restingMemory is what a user may have Redis keep at one time: see REJOIN_COPY_RATE.
	restingMemory = 8 << 20
	descriptors   = 1024 // of the node
	// noise is a quiet p99 that a busy machine may have: below it, nobody notices the ratio.
	noise = 2 * time.Millisecond
)

// An assault is one run of an attack.
type assault struct {
	*testing.T
	attack
	node  *nodetest.Node
	redis *redistest.Server
	line  line
	ctx   context.Context // ends with the attack
	stop  context.CancelFunc
	tasks sync.WaitGroup
	loops bool // rounds go on until the context ends
	// What hold leaves to work: connections, and payloads of CONNECTs.
	held     [attackers]*hostile
	sessions [attackers]string

	kernel sync.Once
	fills  int // messages of 100 KB that the kernels take, and a little more
}

// A line is what all attackers share. It counts what they send.
type line struct {
	sent atomic.Int64
	mu   sync.Mutex
	rate int       // bytes in a second; 0 is no limit
	next time.Time // when the next byte may leave
}

func (l *line) take(ctx context.Context, n int) error {
	l.sent.Add(int64(n))
	l.mu.Lock()
	if now := time.Now(); l.next.Before(now) {
		l.next = now
	}
	wait := time.Until(l.next)
	if l.rate > 0 {
		l.next = l.next.Add(time.Duration(n) * time.Second / time.Duration(l.rate))
	}
	l.mu.Unlock()
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// A paced is an attacker's TCP connection.
type paced struct {
	net.Conn
	a *assault
}

func (p *paced) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), 16<<10)]
		if err := p.a.line.take(p.a.ctx, len(part)); err != nil {
			return written, err
		}
		n, err := p.Conn.Write(part)
		written += n
		if err != nil {
			return written, err
		}
		b = b[n:]
	}
	return written, nil
}

// dial opens an attacker's connection. One that does not read takes little into its kernel.
func (a *assault) dial(reads bool) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(a.ctx, "tcp", a.node.Addr)
	if err != nil {
		return nil, err
	}
	if !reads {
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	}
	context.AfterFunc(a.ctx, func() { c.Close() })
	return &paced{c, a}, nil
}

// raw opens a connection and sends a text.
func (a *assault) raw(text string) net.Conn {
	c, err := a.dial(true)
	if err == nil {
		_, _ = c.Write([]byte(text)) // a connection that the node closes has failed
	}
	return c
}

// A hostile is an attacker's WebSocket. Its methods return false once it is closed, by
// either side.
type hostile struct {
	ws   *websocket.Conn
	mu   sync.Mutex // of who writes
	a    *assault
	wire net.Conn
	// What the answer to CONNECT had.
	sid, pid string
	heard    chan string // messages, if it listens
}

type habit int

const (
	reads   habit = iota // and ignores what it reads, except pings
	listens              // what it reads is in heard
	mute                 // it reads nothing after the answer to its CONNECT
)

// connect opens a WebSocket and connects to the main namespace with a payload; nil if the
// node does not let it.
func (a *assault) connect(h habit, payload string) *hostile { return a.open(h).enter(h, payload) }

// open opens a WebSocket.
func (a *assault) open(h habit) *hostile {
	dialer := websocket.Dialer{NetDialContext: func(context.Context, string, string) (net.Conn, error) { return a.dial(h != mute) }}
	header := http.Header{}
	if a.proxied {
		header.Set("X-Forwarded-For", "192.0.2.1")
	}
	ws, response, err := dialer.DialContext(a.ctx, "ws://"+a.node.Addr+"/socket.io/?recovery=true&EIO=4&transport=websocket", header)
	if response != nil {
		response.Body.Close()
	}
	if err != nil {
		return nil
	}
	return &hostile{ws: ws, a: a, wire: ws.NetConn()}
}

// enter connects to the main namespace.
func (c *hostile) enter(h habit, payload string) *hostile {
	if !c.send("40" + payload) {
		return nil
	}
	for {
		_, m, err := c.ws.ReadMessage()
		if err != nil {
			return nil
		}
		if text := string(m); strings.HasPrefix(text, "40") {
			c.sid, c.pid = field(text, "sid"), field(text, "pid")
			break
		} else if strings.HasPrefix(text, "44") {
			c.close()
			return nil
		}
	}
	if h == listens {
		c.heard = make(chan string, 1000)
	}
	if h != mute {
		c.a.tasks.Go(c.read) // ends with the connection, at the latest with the attack
	}
	return c
}

// field returns a string of an object in JSON, whose strings need no escapes.
func field(object, name string) string {
	_, rest, _ := strings.Cut(object, `"`+name+`":"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func (c *hostile) read() {
	if c.heard != nil {
		defer close(c.heard)
	}
	for {
		_, m, err := c.ws.ReadMessage()
		if err != nil {
			return
		}
		if string(m) == "2" {
			c.send("3")
			continue
		}
		if c.heard != nil {
			select {
			case c.heard <- string(m):
			case <-c.a.ctx.Done():
				return
			}
		}
	}
}

// await returns the next message with a prefix.
func (c *hostile) await(prefix string) (string, bool) {
	for m := range c.heard {
		if strings.HasPrefix(m, prefix) {
			return m, true
		}
	}
	return "", false
}

func (c *hostile) send(text string) bool {
	return c.write(websocket.TextMessage, []byte(text))
}

func (c *hostile) binary(data []byte) bool { return c.write(websocket.BinaryMessage, data) }

func (c *hostile) write(kind int, data []byte) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ws.WriteMessage(kind, data) == nil
}

func (c *hostile) bytes(b string) bool {
	if c == nil {
		return false
	}
	_, err := c.wire.Write([]byte(b))
	return err == nil
}

func (c *hostile) close() {
	if c != nil {
		_ = c.ws.Close()
	}
}

// each yields the rounds of an attacker.
func (a *assault) each(yield func(int) bool) {
	for i := 0; a.ctx.Err() == nil && (a.loops || i < a.rounds) && yield(i); i++ {
	}
}

// moved returns how many bytes have gone into Redis and come out of it.
func (a *assault) moved() int64 {
	a.Helper()
	return a.info("total_net_input_bytes:", "total_net_output_bytes:")
}

// kept returns how many bytes of memory Redis takes.
func (a *assault) kept() int64 {
	a.Helper()
	return a.info("used_memory:")
}

// info returns the sum of some of Redis' numbers.
func (a *assault) info(names ...string) int64 {
	a.Helper()
	info, err := a.redis.Client().Info(context.WithoutCancel(a.Context()), "memory", "stats").Result()
	if err != nil {
		a.Fatal(err)
	}
	total := int64(0)
	for text := range strings.Lines(info) {
		for _, name := range names {
			if value, ok := strings.CutPrefix(text, name); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				if err != nil {
					a.Fatal(err)
				}
				total += n
			}
		}
	}
	return total
}

// assail plays an attack against a node of its own.
func assail(t *testing.T, row attack, binary string) {
	server := redistest.Start(t)
	limited := filepath.Join(t.TempDir(), "limited")
	if err := os.WriteFile(limited, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec %q\n", descriptors, binary), 0o700); err != nil {
		t.Fatal(err)
	}
	n := nodetest.Start(t, limited, append([]string{
		"GOMEMLIMIT=256MiB", "REJOIN_LOG_LEVEL=info", "REJOIN_REDIS_URL=" + server.URL(), "REJOIN_CLUSTER_SECRET=" + clusterSecret,
	}, row.variables...)...)
	a := &assault{T: t, attack: row, node: n, redis: server}
	a.ctx, a.stop = context.WithCancel(t.Context())
	t.Cleanup(func() {
		a.stop()
		a.tasks.Wait()
	})
	nodetest.Eventually(t, "the node is not ready", func() error {
		if status, body := get(t, "http://"+n.Internal+"/readyz"); status != http.StatusOK {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	if long {
		a.playLong()
	} else {
		a.playShort()
		a.judge()
	}
	a.stop()
	a.tasks.Wait()
	open(t, n) // it serves others
}

// all has the attackers do something, concurrently, and waits for them.
func (a *assault) all(conns int, do func(a *assault, conn int)) {
	if do == nil {
		return
	}
	var all sync.WaitGroup
	for conn := range conns {
		all.Go(func() { do(a, conn) })
	}
	all.Wait()
}

// playShort plays a few rounds, and compares bytes.
func (a *assault) playShort() {
	a.Helper()
	before, kept, logged := a.moved(), a.kept(), a.node.Log.Len()
	a.all(shortAttackers, a.hold)
	a.all(shortAttackers, a.work)
	sent, moved, log, used := a.line.sent.Load(), a.moved()-before, a.node.Log.Len()-logged, memory(a.node)
	kept = a.kept() - kept
	a.Logf("%d bytes sent: Redis moves %d and keeps %d, log %d, %d MiB of memory", sent, moved, kept, log, used>>20)
	if kept > mostRedisMemory*sent+restingMemory {
		a.Errorf("%d bytes are kept in Redis for %d of the attackers", kept, sent)
	}
	if moved > mostRedisBytes*sent+restingRedis {
		a.Errorf("%d bytes are moved in Redis for %d of the attackers", moved, sent)
	}
	if float64(log) > mostLogBytes*float64(sent)+restingLog {
		a.Errorf("%d bytes are logged for %d of the attackers", log, sent)
	}
	if used > shortMemory {
		a.Errorf("the node has taken %d MiB", used>>20)
	}
}

// judge looks at what the attackers hold, while they hold it.
func (a *assault) judge() {
	if a.check != nil {
		a.check(a)
	}
}

// playLong plays for some seconds, with a neighbour that notices.
func (a *assault) playLong() {
	a.Helper()
	b := newNeighbour(a.T, a.node)
	defer b.ws.Close()
	before, begun := a.moved(), time.Now()
	quiet := b.best(quietTime)
	resting := float64(a.moved()-before) / time.Since(begun).Seconds() // in a second
	before, begun = a.moved(), time.Now()
	kept := a.kept()
	log := a.node.Log.Len()

	a.all(attackers, a.hold)
	a.loops = true
	a.line.mu.Lock()
	a.line.rate = lineRate
	a.line.mu.Unlock()
	ended := make(chan struct{})
	go func() { // ends with the attack
		defer close(ended)
		a.all(attackers, a.work)
	}()
	health := make(chan time.Duration, 1)
	go func() { health <- worstHealth(a.node, attackTime*time.Second) }()
	attacked := b.best(attackTime)
	healthz := <-health
	a.judge()
	a.stop()
	<-ended

	sent := a.line.sent.Load()
	moved := float64(a.moved()-before) - resting*time.Since(begun).Seconds()
	kept = a.kept() - kept
	logged := a.node.Log.Len() - log
	resident, err := nodetest.Memory(a.node.Pid(), "VmHWM")
	if err != nil {
		a.Fatal(err)
	}
	slower := max(attacked.echo.Seconds()/max(quiet.echo, noise).Seconds(), attacked.delivery.Seconds()/max(quiet.delivery, noise).Seconds())
	a.Logf("| %s | %d MiB | %.1f → %.1f ms, %.1f → %.1f ms | %.1f | %.1f | %.0f ms | %.2f (%.1f MB sent)", a.name, resident>>20,
		quiet.echo.Seconds()*1e3, attacked.echo.Seconds()*1e3, quiet.delivery.Seconds()*1e3, attacked.delivery.Seconds()*1e3,
		max(0, moved)/float64(sent), float64(max(0, kept))/float64(sent), healthz.Seconds()*1e3, float64(logged)/float64(sent), float64(sent)/1e6)
	if resident > mostMemory {
		a.Errorf("the node has had %d MiB", resident>>20)
	}
	if slower > mostSlowdown {
		a.Errorf("a neighbour's p99 is %.1f times as long: %+v, and %+v before", slower, attacked, quiet)
	}
	if moved > mostRedisBytes*float64(sent) {
		a.Errorf("%.1f bytes are moved in Redis for each of the attackers", moved/float64(sent))
	}
	if kept > mostRedisMemory*sent+restingMemory {
		a.Errorf("%.1f bytes are kept in Redis for each of the attackers", float64(kept)/float64(sent))
	}
	if healthz > mostHealthDelay {
		a.Errorf("/healthz takes %v", healthz)
	}
	if float64(logged) > mostLogBytes*float64(sent)+restingLog {
		a.Errorf("%d bytes are logged for %d of the attackers", logged, sent)
	}
}

// worstHealth asks for the node's health again and again, and returns the longest answer.
func worstHealth(n *nodetest.Node, d time.Duration) (worst time.Duration) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		begun := time.Now()
		response, err := client.Get("http://" + n.Internal + "/healthz")
		worst = max(worst, time.Since(begun))
		if err != nil {
			return client.Timeout
		}
		response.Body.Close()
	}
	return worst
}

// A neighbour is a client that is not an attacker, and notices what attackers do to the node.
type neighbour struct {
	*testing.T
	ws *websocket.Conn
}

// p99s are of an ack by the node alone, and of an event to the client through Redis.
type p99s struct{ echo, delivery time.Duration }

func newNeighbour(t *testing.T, n *nodetest.Node) *neighbour {
	return &neighbour{t, connectWith(t, n, fmt.Sprintf(`{"token":%q}`, tokenFor("neighbour", nil)))}
}

// best returns what is measured in the best of some seconds: other programs of the machine
// only add, and an attack runs all the time.
func (b *neighbour) best(seconds int) p99s {
	b.Helper()
	best := p99s{time.Hour, time.Hour}
	for range seconds {
		p := b.measure(time.Second)
		best = p99s{min(best.echo, p.echo), min(best.delivery, p.delivery)}
	}
	return best
}

func (b *neighbour) measure(d time.Duration) p99s {
	b.Helper()
	var echoes, deliveries []time.Duration
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		echoes = append(echoes, b.trip(`421["echo"]`, "431"))
		deliveries = append(deliveries, b.trip(`42["self","x"]`, `42["x"`))
	}
	return p99s{p99(echoes), p99(deliveries)}
}

func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)*99/100]
}

// trip sends a message, and returns after what time an answer comes.
func (b *neighbour) trip(text, answer string) time.Duration {
	b.Helper()
	begun := time.Now()
	write(b.T, b.ws, text)
	_ = b.ws.SetReadDeadline(begun.Add(nodetest.Patience))
	for {
		_, m, err := b.ws.ReadMessage()
		if err != nil {
			b.Fatal(err)
		}
		if string(m) == "2" {
			write(b.T, b.ws, "3")
		}
		if strings.HasPrefix(string(m), answer) {
			return time.Since(begun)
		}
	}
}
