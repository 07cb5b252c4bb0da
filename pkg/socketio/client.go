package socketio

import (
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// A client is one connection and the sockets on it, one for each namespace.
type client struct {
	srv  *Server
	conn *engineio.Conn
	// connectTimer closes the connection if its client does not connect to a namespace in time.
	connectTimer *time.Timer

	connects time.Time // when the next CONNECT is due, for the rate limit; used by the reader only

	// filling is held by a socket that waits until there is space in the send queue and then uses it:
	// sockets in other namespaces must not use the same space.
	filling sync.Mutex

	// answering have a value while a small or a large ack waits and is queued: those of all namespaces
	// take turns.
	answering struct{ small, large chan struct{} }

	// stays is the part of the server's memberships that belongs to the connection's sockets.
	stays atomic.Int64

	mu      sync.Mutex
	sockets []*Socket   // includes connecting ones; few, so a slice
	retry   *time.Timer // closes the connection so that its client reconnects, or nil
	// ended are namespaces in which the server has disconnected the client; the client may have
	// sent events before it learned of it. May be nil.
	ended []string

	parked  atomic.Pointer[mailbox] // the full mailbox that the reader waits for; nil if it reads
	leaving atomic.Bool             // received packets are no longer accepted

	// Of the packet that waits for attachments; they belong to the reader.
	holds bool        // it is counted
	late  *time.Timer // closes the connection if the next does not come; nil before the first

	unconnected *list.Element // in Server.unconnected, whose mutex guards it; nil if absent
	settled     bool          // it must not be added there any more; same mutex
}

// serve reads a connection until it ends. The engine calls it on the connection's own goroutine.
func (s *Server) serve(conn *engineio.Conn) {
	c := &client{srv: s, conn: conn}
	c.answering.small, c.answering.large = make(chan struct{}, 1), make(chan struct{}, 1)
	c.startConnectTimer()
	defer c.stopTimers()
	c.waitForConnect()
	defer c.release()
	s.mu.Lock()
	put(&s.clients, conn.ID(), c)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.clients, conn.ID())
		s.mu.Unlock()
	}()
	var dec packet.Decoder
	for {
		m, err := conn.Recv()
		if err != nil {
			c.end(err)
			return
		}
		if err := c.receive(&dec, m); err != nil {
			s.log.Debug("protocol violation by a client", zap.String("address", conn.Handshake().RemoteAddr), zap.Error(err))
			if broken := (*packet.Error)(nil); errors.As(err, &broken) && broken.Reason == packet.TooManyElements {
				c.limited(limitArguments, packet.MaxElements, "elements")
			}
			c.report(err)
			conn.Close(engineio.ForcedClose)
			c.end(&engineio.CloseError{Reason: engineio.ForcedClose, Err: err})
			return
		}
	}
}

// receive handles one message. An error means that the client violated the protocol (Socket.IO
// protocol v5) and its connection must end.
func (c *client) receive(dec *packet.Decoder, m engineio.Message) error {
	var p *packet.Packet
	var err error
	if m.Binary {
		p, err = dec.Binary(m.Data)
	} else {
		p, err = dec.Text(m.Data)
	}
	if err != nil && m.Binary {
		if namespace, ok := msgpackConnect(m.Data); ok {
			return c.refuseMsgpack(namespace)
		}
	}
	if err != nil {
		return err
	}
	if p == nil {
		c.hold(dec.Pending())
		return nil
	}
	c.release()
	s := c.socket(p.Namespace)
	if (p.Type == packet.Connect || p.Type == packet.Event) && c.leaving.Load() {
		return nil // the client will send it again
	}
	switch p.Type {
	case packet.Connect:
		if s != nil {
			return fmt.Errorf("second CONNECT to %.100q", p.Namespace)
		}
		c.connect(p)
		return nil
	case packet.Event:
		switch {
		case s == nil && c.hasEnded(p.Namespace):
			return nil
		case s == nil:
			return fmt.Errorf("event for %.100q, which is not connected", p.Namespace)
		}
		return s.receive(p)
	case packet.Ack:
		if s != nil {
			s.receiveAck(p)
		}
		return nil
	case packet.Disconnect:
		if s != nil {
			s.end(ClientDisconnect)
		}
		return nil
	}
	return fmt.Errorf("packet type %d from a client", p.Type)
}

// refuseMsgpack answers a client that uses the MessagePack parser, in its encoding. If its
// connection were closed instead, it would reconnect forever.
func (c *client) refuseMsgpack(namespace string) error {
	c.srv.msgpackOnce.Do(func() {
		c.srv.log.Warn("MessagePack parser not supported; further clients are not logged",
			zap.String("address", c.conn.Handshake().RemoteAddr), zap.String("namespace", namespace))
	})
	return c.conn.Send(engineio.Binary(msgpackRefusal(namespace)))
}

// connect begins to connect a socket. The client's events may arrive immediately; they wait in
// the mailbox. A connection that exceeds the CONNECT rate is closed, so that the client
// reconnects.
func (c *client) connect(p *packet.Packet) {
	pace := pace{c.srv.connectable() + connectsAgain, connectInterval}
	due, ok := pace.after(c.connects, time.Now())
	if !ok {
		c.limited(limitConnects, pace.burst, "connects")
		c.conn.Close(engineio.TransportError)
		return
	}
	c.connects = due
	if len(p.Data) > maxConnectPayload {
		c.limited(limitConnectPayload, maxConnectPayload, "bytes")
		newSocket(c, p.Namespace).refuse(&ConnectError{
			Message: fmt.Sprintf("CONNECT payload too large: at most %d bytes", maxConnectPayload),
			Data:    map[string]string{"code": "too_large"},
		})
		return
	}
	auth := []byte("{}")
	if p.Data != nil {
		auth = bytes.Clone(p.Data) // the message that contains it may be far larger
	}
	s := newSocket(c, p.Namespace)
	if reason := c.attach(s); reason != "" {
		s.refuse(&ConnectError{Message: "Too many namespaces: " + reason, Data: map[string]string{"code": "too_many"}})
		return
	}
	r := &ConnectRequest{socket: s, auth: auth}
	c.srv.spawn(func() {
		if cost := len(auth); cost >= receivedStep { // middlewares may wait, as handlers may
			c.srv.received.keeps(c, cost)
			defer c.srv.received.keeps(c, -cost)
			c.srv.relieve()
		}
		c.srv.admit(r)
	})
}

// connectable returns the number of namespaces that a connection may be connected to.
func (s *Server) connectable() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	maximum := s.opts.NamespacesPerConnection
	if len(s.parents) == 0 { // there are no others
		maximum = min(maximum, len(s.namespaces))
	}
	return maximum
}

// attach adds a socket to the connection, or returns the reason why that exceeds a limit.
func (c *client) attach(s *Socket) (reason string) {
	c.mu.Lock()
	had, most := len(c.sockets), c.srv.opts.NamespacesPerConnection
	full := had >= most
	crowded := !full && had > 0 && !c.srv.reserveSocket(had)
	if !full && !crowded {
		c.sockets = append(c.sockets, s)
		c.ended = slices.DeleteFunc(c.ended, func(name string) bool { return name == s.nsName })
	}
	c.mu.Unlock()
	switch {
	case full:
		c.srv.stats.tooManyNamespaces.Add(1)
		return fmt.Sprintf("at most %d on one connection", most)
	case crowded:
		c.limited(limitMemberships, c.srv.opts.MembershipBudget, "bytes")
		return "sockets of all clients take too much memory"
	case had == 0:
		c.srv.unconnected.remove(c, false)
	}
	return ""
}

// closeForRetry closes the connection, so that stock clients reconnect. This disconnects the
// client's sockets in other namespaces. If there are any, closeForRetry waits first, because
// they must stay usable while one namespace is unavailable for minutes.
func (c *client) closeForRetry() {
	c.mu.Lock()
	alone := len(c.sockets) == 0
	if !alone && c.retry == nil {
		delay := c.srv.retryDelay
		c.retry = time.AfterFunc(delay+rand.N(delay), func() { c.conn.Close(engineio.TransportError) })
	}
	c.mu.Unlock()
	if alone {
		c.conn.Close(engineio.TransportError)
	}
}

// stopTimers stops the client's timers when the connection has ended.
func (c *client) stopTimers() {
	c.connectTimer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retry != nil {
		c.retry.Stop()
	}
}

func (c *client) socket(namespace string) *Socket {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sockets {
		if s.nsName == namespace {
			return s
		}
	}
	return nil
}

// maxEnded is the number of namespaces that a connection remembers as ended by the server: the
// newest ones.
const maxEnded = 100

// bar records that the client is disconnected from a namespace and may not know it yet.
func (c *client) bar(namespace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ended) == maxEnded {
		c.ended = slices.Delete(c.ended, 0, 1)
	}
	c.ended = append(c.ended, namespace)
}

func (c *client) hasEnded(namespace string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.ended, namespace)
}

// detach removes a socket from the connection.
func (c *client) detach(s *Socket) {
	c.mu.Lock()
	i := slices.Index(c.sockets, s)
	if i >= 0 {
		c.sockets = append(c.sockets[:i:i], c.sockets[i+1:]...)
	}
	last := i >= 0 && len(c.sockets) == 0
	if i >= 0 && !last {
		c.srv.memberships.Add(-socketCost)
	}
	c.mu.Unlock()
	if last {
		c.waitForConnect()
	}
}

func (c *client) all() []*Socket {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Socket(nil), c.sockets...)
}

// report passes an error to every socket's error handlers.
func (c *client) report(err error) {
	for _, s := range c.all() {
		s.mail.put(&c.srv.tasks, func() { s.fail(err) })
	}
}

// end disconnects all sockets because the connection has ended.
func (c *client) end(err error) {
	c.srv.unconnected.remove(c, true)
	reason := TransportClose
	if ce := (*engineio.CloseError)(nil); errors.As(err, &ce) {
		reason = Reason(ce.Reason)
	}
	switch o := &c.srv.opts.Engine; {
	case errors.Is(err, engineio.ErrSlowClient):
		c.logLimit(limitSendQueue, o.SendQueueBytes, "bytes")
	case errors.Is(err, engineio.ErrQueueBudget):
		c.logLimit(limitQueueBudget, o.QueueBudget, "bytes")
	}
	for _, s := range c.all() {
		s.end(reason)
	}
}

// send queues a packet and bypasses every gate: for answers to the client, and packets before its
// first event.
func (c *client) send(p *packet.Packet) error {
	return c.conn.Send(enginePackets(p, false)...)
}
