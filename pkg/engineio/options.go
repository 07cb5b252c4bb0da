package engineio

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// The names of the transports.
const (
	Polling   = "polling"
	WebSocket = "websocket"
)

// Options configure a [Server]. A zero field means the default that its comment
// begins with. Hooks may be called concurrently, and no lock is held while they run.
//
// A panic in a hook ends neither the process nor other connections. It is given to
// OnPanic, or logged. AllowOrigin, AllowRequest, Admit and GenerateID then refuse the
// request; after one in Use or Forward the request is aborted, as by
// [http.ErrAbortHandler]; one in OnRefused, Headers, InitialHeaders and the function
// that Admit returned has no other effect.
type Options struct {
	// Path is "/engine.io/": requests whose path begins with it are served. It begins
	// with a slash.
	Path string
	// NodeID is random: the four characters of A-Z, a-z, 0-9, - and _ that begin
	// every session id, by which a balancer can find the node.
	NodeID string
	// PingInterval is 25 seconds: the time from an answered ping to the next, and from one
	// ping to the next where an answer may be late.
	PingInterval time.Duration
	// PingTimeout is 20 seconds: how long the answer may take.
	PingTimeout time.Duration
	// PauseTimeout is 2 minutes: how long reading may be paused by [Conn.Pause] before
	// the connection is closed. It may take a ping interval or timeout longer.
	PauseTimeout time.Duration
	// UpgradeTimeout is 10 seconds: how long a client may take to move to a
	// WebSocket, not counting the time in which a POST of it is not answered.
	UpgradeTimeout time.Duration
	// MaxPayload is 1,000,000: the most bytes of a POST and of a message received
	// on a WebSocket. A longer message closes a WebSocket with code 1009 and
	// [TransportError]. A longer POST is answered 413 and the session stays open;
	// stock clients abandon it and connect anew. Both are counted in [Stats] and
	// logged, at most once in 10 seconds.
	MaxPayload int
	// SendQueueBytes is 1 MiB: a connection that has this much queued is closed
	// rather than sent more; see [Conn.Send]. A packet counts as its frame and 144 bytes,
	// so 1 MiB is reached by some 6,000 small packets.
	SendQueueBytes int
	// QueueBudget is none: the most bytes that may be queued on all connections
	// together. If more are, connections are closed of which nothing was written for 3
	// seconds, those first for which the most is held, until an eighth of the budget is
	// free. If the budget is exceeded by an eighth still, others are closed as well; see
	// [Conn.Send]. That takes a moment, in which a connection that gets more is closed
	// if the budget is exceeded by a quarter and its equal share is held for it. A
	// packet of more than 2 KiB counts once, because connections share its memory, a
	// smaller one for each connection.
	QueueBudget int
	shedAfter   time.Duration // the 3 seconds; tests have less time
	// Transports is polling and websocket: the transports that are served. NewServer
	// refuses an empty list, duplicates and others.
	Transports []string
	// DisableUpgrades keeps a session on the transport that it began with.
	DisableUpgrades bool
	// Origins lists the web origins that may use the server beside its own. By
	// default there are none. Requests of other origins are refused on every
	// transport; those without an Origin header never are. The forms are:
	//
	//	https://app.example        this origin; the port may be given: https://app.example:8443
	//	https://*.app.example      all its subdomains at any depth, without itself
	//	capacitor://localhost      an origin of another scheme; also file:// and app://
	//	null                       pages without an origin, such as sandboxed frames and files
	//	*                          all, as the only one
	//
	// A default port is equal to none, wss to https and ws to http. Listed origins
	// may send credentials, which "*" does not allow. NewServer refuses malformed
	// ones.
	//
	// The server's own origin is that of the request's Host and scheme: https if it
	// came over TLS, else http or https, because there may be TLS in front of the
	// server. A middleware in front of the server that knows better, such as one
	// that trusts the headers of a proxy, sets Host and URL.Scheme of the request.
	Origins []string
	// AllowOrigin is optional. It decides about requests whose origin is neither the
	// server's own nor listed, including "null". It is called several times for one
	// request, concurrently for several, and must not block.
	AllowOrigin func(r *http.Request, origin string) bool
	// AllowRequest is asked for each new session, not for the later requests of
	// one. The text of its error is sent to the client.
	AllowRequest func(*http.Request) error
	// Admit is none. It is asked for each new session before AllowRequest, and
	// before anything that costs time or memory. An error refuses the session; a
	// *[BusyError] says with which status, and when to try again. If it returns a
	// function that is called once: when the connection is closed and its serve function
	// has returned, or has not come about. Neither may block.
	Admit func(*http.Request) (ended func(), err error)
	// OnRefused is called for each request that is refused before it reaches a
	// connection, with the protocol's code and message: 0 to 5, -1 while the server
	// refuses new connections, and -2 if Admit does. It must return soon.
	OnRefused func(r *http.Request, code int, message string)
	// Cookie is none. If set, a copy with the session id as its value is set by
	// handshakes by polling. Its name is "io" if empty, its path "/", SameSite Lax;
	// it is always HttpOnly. It needs polling among the Transports.
	Cookie *http.Cookie
	// InitialHeaders may change the headers of the response to the first request
	// of a session, Headers those of all responses of sessions and of the 101.
	InitialHeaders, Headers func(h http.Header, r *http.Request)
	// Use lists middlewares, the outermost first, that each request passes through.
	// One that wraps the ResponseWriter must have an Unwrap method, or it prevents
	// upgrades.
	Use []func(http.Handler) http.Handler
	// HTTPCompressionThreshold is 1024: the size in bytes from which on polling
	// responses are compressed. Negative: none is.
	HTTPCompressionThreshold int
	// PerMessageDeflate compresses messages of PerMessageDeflateThreshold bytes or
	// more (1024 by default) on WebSockets whose client offers it. It costs much
	// time and memory.
	PerMessageDeflate          bool
	PerMessageDeflateThreshold int
	// InitialPacket is none. It is sent to each client, right behind the handshake.
	InitialPacket *Packet
	// GenerateID makes the session ids: NodeID and 16 random characters. Ids must be
	// unique and cannot be guessed, or others can take over sessions.
	GenerateID func(*http.Request) (string, error)
	// Forward is called for each request of a session that the server does not know
	// and whose id has the form that the server makes, but begins with another node's
	// id, the owner. It may have that node answer, by giving the request, marked by
	// [Forwarded], to its server there, and then returns nil. If it returns an error,
	// nothing must have been written. One that wraps [ErrUnknownSession] is proof that
	// the session does not exist any more. After any other it may exist: a poll is
	// answered with a packet without content, so that the client polls again, and any
	// other request with the status 503. The request has passed Origins and Use, whose
	// headers the response has already; the body of a POST is in memory, bounded by
	// MaxPayload, and GetBody returns it again; no other has one. nil forwards nothing.
	Forward func(w http.ResponseWriter, r *http.Request, owner string) error
	// OnPanic is optional: nil logs panics of hooks. It is called instead, with the
	// name of the hook, such as "Admit", the value of the panic and the stack. The hook
	// "serve" is the function given to [NewServer]. It must not block.
	OnPanic func(hook string, value any, stack []byte)
	// Logger is none.
	Logger *zap.Logger
}

var nodeIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{4}$`)

// withDefaults checks o and fills it in.
func (o Options) withDefaults() (Options, error) {
	o.Path = or(o.Path, "/engine.io/")
	o.NodeID = or(o.NodeID, randomString(nodeIDLen))
	o.PingInterval = or(o.PingInterval, 25*time.Second)
	o.PingTimeout = or(o.PingTimeout, 20*time.Second)
	o.PauseTimeout = or(o.PauseTimeout, 2*time.Minute)
	o.UpgradeTimeout = or(o.UpgradeTimeout, 10*time.Second)
	o.MaxPayload = or(o.MaxPayload, 1_000_000)
	o.SendQueueBytes = or(o.SendQueueBytes, 1<<20)
	o.shedAfter = or(o.shedAfter, 3*time.Second)
	o.HTTPCompressionThreshold = or(o.HTTPCompressionThreshold, 1024)
	o.PerMessageDeflateThreshold = or(o.PerMessageDeflateThreshold, 1024)
	o.Logger = or(o.Logger, zap.NewNop())
	if o.Transports == nil {
		o.Transports = []string{Polling, WebSocket}
	}
	if o.Cookie != nil {
		cookie := *o.Cookie
		cookie.Name = or(cookie.Name, "io")
		cookie.Path = or(cookie.Path, "/")
		cookie.SameSite = or(cookie.SameSite, http.SameSiteLaxMode)
		cookie.HttpOnly = true
		o.Cookie = &cookie
	}
	if !nodeIDPattern.MatchString(o.NodeID) {
		return o, fmt.Errorf("engineio: node id %q is not four characters of A-Z, a-z, 0-9, - and _", o.NodeID)
	}
	if err := o.check(); err != nil {
		return o, err
	}
	if d := min(o.PingInterval, o.PingTimeout, o.PauseTimeout, o.UpgradeTimeout); d < time.Millisecond {
		return o, fmt.Errorf("engineio: ping interval, ping timeout, pause timeout and upgrade timeout must be at least a millisecond, not %v", d)
	}
	return o, nil
}

// check returns an error for options that cannot work, which says what to write
// instead.
func (o *Options) check() error {
	if !strings.HasPrefix(o.Path, "/") {
		return fmt.Errorf("engineio: Path %q: write %q", o.Path, "/"+o.Path)
	}
	for _, size := range []struct {
		name  string
		value int
	}{
		{"MaxPayload", o.MaxPayload}, {"SendQueueBytes", o.SendQueueBytes}, {"QueueBudget", o.QueueBudget},
		{"PerMessageDeflateThreshold", o.PerMessageDeflateThreshold},
	} {
		if size.value < 0 {
			return fmt.Errorf("engineio: %s is %d: write a positive number, or 0 for the default", size.name, size.value)
		}
	}
	if len(o.Transports) == 0 {
		return fmt.Errorf("engineio: Transports is empty: write %q, %q or both, or nil for both", Polling, WebSocket)
	}
	for i, t := range o.Transports {
		switch {
		case t != Polling && t != WebSocket:
			return fmt.Errorf("engineio: unknown transport %q: write %q or %q", t, Polling, WebSocket)
		case slices.Contains(o.Transports[:i], t):
			return fmt.Errorf("engineio: duplicate transport %q: remove one", t)
		}
	}
	if o.Cookie != nil && !slices.Contains(o.Transports, Polling) {
		return fmt.Errorf("engineio: Cookie is set by handshakes by polling: remove it, or add %q to Transports", Polling)
	}
	for i, use := range o.Use {
		if use == nil {
			return fmt.Errorf("engineio: Use[%d] is nil: remove it", i)
		}
	}
	return nil
}

// or returns v, or the default if v is the zero value.
func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
