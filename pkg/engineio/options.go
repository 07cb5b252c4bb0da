package engineio

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
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

// Options configure a [Server]. A zero field means the default with which its comment begins. Hooks
// may be called concurrently, and no lock is held while they run.
//
// A panic in a hook ends neither the process nor other connections. It is passed to OnPanic, or
// logged. AllowOrigin, AllowRequest, Admit and GenerateID then refuse the request; after one in Use
// or Forward the request is aborted, as by [http.ErrAbortHandler]; one in OnRefused, Headers,
// InitialHeaders and the function that Admit returned has no other effect.
type Options struct {
	// Path is the beginning of the paths of served requests: "/engine.io/" by default. It begins
	// with a slash.
	Path string
	// NodeID is the four characters of A-Z, a-z, 0-9, - and _ that begin every session id and
	// identify the node to a load balancer: random by default.
	NodeID string
	// PingInterval is the time from an answered ping to the next, and from one ping to the next if
	// an answer may be late: 25 seconds by default.
	PingInterval time.Duration
	// PingTimeout is the maximum time until a ping is answered: 20 seconds by default.
	PingTimeout time.Duration
	// PauseTimeout is the maximum duration of a [Conn.Pause], after which the connection is closed:
	// 2 minutes by default. Closing may take a ping interval or timeout longer.
	PauseTimeout time.Duration
	// UpgradeTimeout is the maximum time for a client to upgrade to a WebSocket, not counting the
	// time in which one of its POSTs is unanswered: 10 seconds by default.
	UpgradeTimeout time.Duration
	// MaxPayload is the maximum size in bytes of a POST and of a message received on a WebSocket:
	// 1,000,000 by default. A longer message closes a WebSocket with code 1009 and
	// [TransportError]. A longer POST is answered 413 and the session stays open; stock clients
	// abandon it and reconnect. Both are counted in [Stats] and logged, at most once in 10 seconds.
	MaxPayload int
	// SendQueueBytes is the limit of a connection's send queue in bytes: 1 MiB by default. A
	// connection with this much queued is closed instead of being sent more; see [Conn.Send].
	// Packets of [Conn.SendPaced] do not count. A packet counts as its frame and 144 bytes, so some
	// 6,000 small packets reach 1 MiB.
	SendQueueBytes int
	// QueueBudget is the maximum number of bytes queued on all connections together: no limit by
	// default. If it is exceeded, connections to which nothing was written for 3 seconds are
	// closed, those for which the most is held first, until an eighth of the budget is free. If the
	// budget is still exceeded by an eighth, others are closed as well; see [Conn.Send]. Closing
	// takes a moment. Meanwhile Send closes its connection if the budget is exceeded by a quarter
	// and the connection holds at least an equal share of it. A packet of more than 2 KiB counts
	// once, because connections share its memory. A smaller packet counts for each connection.
	QueueBudget int
	shedAfter   time.Duration // the 3 seconds; shorter in tests
	// ReceiveBudget is the maximum number of bytes of messages and polling requests whose end has not
	// arrived, and of polling requests that have not been forwarded or passed to Recv, on all
	// connections together: 64 MiB by default, or twice MaxPayload if that is more. Those of at most
	// 4 KiB are not counted. If it is exceeded, the connections with the slowest messages are closed;
	// of those that are about equally fast, the ones whose message has begun last.
	ReceiveBudget int
	// Transports are the transports that are served: polling and websocket by default. NewServer
	// refuses an empty list, duplicates and unknown names.
	Transports []string
	// DisableUpgrades keeps a session on the transport that it began with.
	DisableUpgrades bool
	// Origins lists the web origins, beside its own, that may use the server. By default there are
	// none. Requests of other origins are refused on every transport; those without an Origin
	// header never are. The forms are:
	//
	//	https://app.example        this origin; the port may be given: https://app.example:8443
	//	https://*.app.example      all its subdomains at any depth, but not itself
	//	capacitor://localhost      an origin of another scheme; also file:// and app://
	//	null                       pages without an origin, such as sandboxed frames and files
	//	*                          all origins; must be the only entry
	//
	// A default port is the same as none, wss as https and ws as http. Listed origins may send
	// credentials, which "*" does not allow. NewServer refuses malformed ones.
	//
	// The server's own origin is that of the request's Host and scheme: https if it came over TLS,
	// otherwise http or https, because a TLS proxy may precede the server. A middleware with better
	// information, such as one that trusts the headers of a proxy, sets Host and URL.Scheme of the
	// request.
	Origins []string
	// AllowOrigin is optional. It decides about requests whose origin is neither the server's own
	// nor listed, including "null". It may be called several times for one request and concurrently
	// for several, and must not block.
	AllowOrigin func(r *http.Request, origin string) bool
	// AllowRequest is optional. It is called for each new session, not for the later requests of
	// one. The text of its error is sent to the client.
	AllowRequest func(*http.Request) error
	// Admit is optional. It is called for each new session before AllowRequest, and before anything
	// that costs time or memory. An error refuses the session; a *[BusyError] sets the status and the
	// time to retry. If Admit returns a function, that is called once: if no connection was created,
	// or when the connection is closed, its serve function has returned and nothing is left to write.
	// A polling client has 30 seconds to fetch the rest. Neither may block.
	Admit func(*http.Request) (ended func(), err error)
	// OnRefused is optional. It is called for each request that is refused before it reaches a connection, with the
	// protocol's code and message: 0 to 5, -1 while the server refuses new connections, and -2 if
	// Admit does. It must not block.
	OnRefused func(r *http.Request, code int, message string)
	// Cookie is optional. If set, polling handshakes set a copy with the session id as its value.
	// Its name is "io" if empty, its path "/", SameSite Lax; it is always HttpOnly. It requires
	// polling among the Transports.
	Cookie *http.Cookie
	// InitialHeaders and Headers are optional. InitialHeaders may change the headers of the response to
	// the first request of a session, Headers those of all responses of sessions and of the 101. They
	// must not block.
	InitialHeaders, Headers func(h http.Header, r *http.Request)
	// Use lists middlewares, the outermost first, that each request passes through. A middleware
	// that wraps the ResponseWriter must give it an Unwrap method, or it prevents upgrades.
	Use []func(http.Handler) http.Handler
	// HTTPCompressionThreshold is the minimum size in bytes of polling responses that are
	// compressed: 1024 by default. Those of more than 8 KiB are sent uncompressed if they have more
	// than 1 MiB, or if all together exceed 8 MiB per second. A negative value disables
	// compression.
	HTTPCompressionThreshold int
	// PerMessageDeflate compresses messages of at least PerMessageDeflateThreshold bytes, 1024 by
	// default, on WebSockets whose client offers it. A packet that connections share is
	// compressed once.
	PerMessageDeflate          bool
	PerMessageDeflateThreshold int
	// InitialPacket is optional. It is sent to each client, directly after the handshake.
	InitialPacket *Packet
	// GenerateID makes the session ids: NodeID and 16 random characters by default. Ids must be
	// unique and unguessable, or other clients can take over sessions.
	GenerateID func(*http.Request) (string, error)
	// Forward is optional; nil forwards nothing. It is called for each request of a session that
	// the server does not know and whose id has the server's form, but begins with another node's
	// id, the owner. To have that node answer, it passes the request, marked by [Forwarded], to the
	// server there, and then returns nil. If it returns an error, it must not have written
	// anything. An error that wraps [ErrUnknownSession] is proof that the session no longer exists.
	// After any other error it may exist: a poll is answered with a packet without content, so that
	// the client polls again, and any other request with the status 503. The request has passed
	// Origins and Use, and the response already has their headers. The body of a POST is in memory,
	// bounded by MaxPayload, and GetBody returns it again; other requests have no body.
	Forward func(w http.ResponseWriter, r *http.Request, owner string) error
	// OnPanic is optional; by default panics of hooks are logged. It is called instead, with the
	// name of the hook, such as "Admit", the value of the panic and the stack. The hook "serve" is
	// the function given to [NewServer]. It must not block.
	OnPanic func(hook string, value any, stack []byte)
	// Logger is optional.
	Logger *zap.Logger
}

var nodeIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{4}$`)

// WithDefaults returns the options with their defaults in place of zero fields. For invalid options
// it returns an error that says what is allowed.
func (o Options) WithDefaults() (Options, error) {
	o.Path = cmp.Or(o.Path, "/engine.io/")
	o.NodeID = cmp.Or(o.NodeID, randomString(nodeIDLen))
	o.PingInterval = cmp.Or(o.PingInterval, 25*time.Second)
	o.PingTimeout = cmp.Or(o.PingTimeout, 20*time.Second)
	o.PauseTimeout = cmp.Or(o.PauseTimeout, 2*time.Minute)
	o.UpgradeTimeout = cmp.Or(o.UpgradeTimeout, 10*time.Second)
	o.MaxPayload = cmp.Or(o.MaxPayload, 1_000_000)
	o.SendQueueBytes = cmp.Or(o.SendQueueBytes, 1<<20)
	o.ReceiveBudget = cmp.Or(o.ReceiveBudget, max(64<<20, 2*o.MaxPayload))
	o.shedAfter = cmp.Or(o.shedAfter, 3*time.Second)
	o.HTTPCompressionThreshold = cmp.Or(o.HTTPCompressionThreshold, 1024)
	o.PerMessageDeflateThreshold = cmp.Or(o.PerMessageDeflateThreshold, 1024)
	o.Logger = cmp.Or(o.Logger, zap.NewNop())
	if o.Transports == nil {
		o.Transports = []string{Polling, WebSocket}
	}
	if o.Cookie != nil {
		cookie := *o.Cookie
		cookie.Name = cmp.Or(cookie.Name, "io")
		cookie.Path = cmp.Or(cookie.Path, "/")
		cookie.SameSite = cmp.Or(cookie.SameSite, http.SameSiteLaxMode)
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

// check returns an error that says what is allowed if options are invalid.
func (o *Options) check() error {
	if !strings.HasPrefix(o.Path, "/") {
		return fmt.Errorf("engineio: Path %q: write %q", o.Path, "/"+o.Path)
	}
	for _, size := range []struct {
		name  string
		value int
	}{
		{"MaxPayload", o.MaxPayload}, {"SendQueueBytes", o.SendQueueBytes}, {"QueueBudget", o.QueueBudget},
		{"ReceiveBudget", o.ReceiveBudget},
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

// nodeIDLen is the number of characters of a node id.
const nodeIDLen = 4

// randomString returns n random characters of A-Z, a-z, 0-9, - and _. n is a
// multiple of 4.
func randomString(n int) string {
	b := make([]byte, n/4*3)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}
