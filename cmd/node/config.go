package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/certs"
	"github.com/rejoin-io/rejoin/internal/client"
	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A config holds all settings, one field for each variable. The tags define how
// a value is read, checked and documented:
//
//	default  the value of a variable that is not set
//	within   the smallest and the largest value
//	pattern  a regular expression for the value, or for each element of a list
//	allowed  the possible values in words
//	desc     the meaning
//	section  heading of a group of variables, on its first one
//	secret   the value is never shown
//	file     the value may be in a file, named by the variable with the suffix _FILE;
//	         this holds for all secrets
//
// split_words makes the variable's name from the field's. With an envconfig tag
// the name without its prefix would be read too, for example PATH.
type config struct {
	Addr           address `section:"Addresses" split_words:"true" default:"127.0.0.1:3000" pattern:".+" allowed:"host:port" desc:"public address: clients and the demo page"`
	InternalAddr   address `split_words:"true" default:"127.0.0.1:3001" pattern:".+" allowed:"host:port" desc:"internal address: /healthz, /readyz and /metrics, the API for backends, and requests forwarded by other nodes"`
	AllowAnonymous bool    `split_words:"true" default:"false" desc:"allow non-loopback listeners without authentication"`

	JWTSecret     secret      `section:"Authentication and permissions" split_words:"true" secret:"true" allowed:"16 characters or more" desc:"key of tokens signed with HMAC (HS256, HS384, HS512); with a key of any kind every client must present a token"`
	JWTPublicKey  publicKeys  `split_words:"true" secret:"true" allowed:"public keys or certificates as PEM: RSA of 2048 bits or more, ECDSA on P-256, P-384 or P-521, Ed25519" desc:"keys of tokens signed with RSA, RSA-PSS, ECDSA or EdDSA"`
	JwksURL       jwksURL     `split_words:"true" secret:"true" allowed:"an http or https URL" desc:"JWKS server from which such keys are fetched: at startup, every 5 minutes, and when a token names an unknown key"`
	JWTIssuer     string      `split_words:"true" allowed:"any text" desc:"required value of a token's iss; any if not set"`
	JWTAudience   string      `split_words:"true" allowed:"any text" desc:"value that a token's aud must contain; any if not set"`
	DefaultCan    permissions `split_words:"true" allowed:"a JSON object with join, to, history and members, each a list of at most 100 patterns of rooms, and broadcast, all and private, each true or false" desc:"permissions of clients whose tokens do not state any; none if not set. Without authentication, permissions of all clients; everything if not set"`
	ClaimAudience claim       `split_words:"true" allowed:"as REJOIN_CLAIM_USER" desc:"claim that must contain REJOIN_JWT_AUDIENCE, in place of aud"`
	ClaimUser     claim       `split_words:"true" allowed:"the name of a claim, such as oid, or names separated by dots, such as profile.id; \\. is a dot within a name, and a name with :// needs none" desc:"claim that names the user, in place of sub (docs/identity-providers.md)"`
	ClaimRooms    claimRooms  `split_words:"true" allowed:"a list of CLAIM, CLAIM=VALUE and either one with \" as ROOM\", separated by commas; {} in VALUE is any text, and in ROOM that text" desc:"claims whose values are rooms that a client is in from the start, unless its token has rejoin.rooms"`
	ClaimCan      claimCan    `split_words:"true" allowed:"a JSON object: names are CLAIM or CLAIM=VALUE, values are objects as in REJOIN_DEFAULT_CAN, with {} in patterns for the text that {} in VALUE stands for" desc:"permissions of clients whose tokens have such a claim, in addition to REJOIN_DEFAULT_CAN, unless their tokens have rejoin.can"`

	Path           string        `section:"Clients and their connections" split_words:"true" default:"/socket.io/" pattern:"(/([.]{3}|[.]{0,2}[A-Za-z0-9_~-])[A-Za-z0-9._~-]*)+/" allowed:"a path of letters, digits and . _ ~ - that begins and ends with a slash and is not / alone" desc:"path at which clients connect"`
	Namespaces     list          `split_words:"true" default:"/" pattern:"/[^?]*" allowed:"a list of different names that begin with a slash, separated by commas; * in a name is any text without a slash" desc:"namespaces that clients can connect to. One whose name has * stands for all that match it; each exists while it has clients"`
	Origins        origins       `split_words:"true" allowed:"a list of scheme://host, scheme://host:port, scheme://*.domain, file:// and null, separated by commas, or * for any" desc:"web origins that may connect in addition to the node's own (docs/security.md)"`
	Transports     list          `split_words:"true" default:"polling,websocket" pattern:"polling|websocket" allowed:"polling, websocket or both, separated by commas" desc:"transports that clients may use"`
	PingInterval   time.Duration `split_words:"true" default:"25s" within:"50ms 1h" desc:"time between two pings"`
	PingTimeout    time.Duration `split_words:"true" default:"20s" within:"50ms 1h" desc:"time in which a client must answer a ping"`
	UpgradeTimeout time.Duration `split_words:"true" default:"10s" within:"50ms 1h" desc:"time in which a client must upgrade from polling to websocket"`
	ConnectTimeout time.Duration `split_words:"true" default:"45s" within:"50ms 1h" desc:"time in which a connection must connect to a namespace"`
	KeepAlive      time.Duration `split_words:"true" default:"620s" within:"1s 24h" desc:"how long an idle TCP connection is kept open between two requests; must be longer than the load balancer's idle timeout, because the balancer would otherwise send requests on connections that are being closed"`
	HealthPath     string        `split_words:"true" pattern:"((/([.]{3}|[.]{0,2}[A-Za-z0-9_~-])[A-Za-z0-9._~-]*)+)?" allowed:"a path such as /healthz, outside REJOIN_PATH and the demo page's" desc:"path at the public address that answers 200 if the node is ready, otherwise 503, for load balancers that cannot reach the internal address; none if not set"`
	MaxPayload     size          `split_words:"true" default:"1000000" within:"128 256MiB" desc:"maximum size of a message, or of a polling request, from a client"`
	SendQueueBytes size          `split_words:"true" default:"1MiB" within:"1KiB 1GiB" desc:"send queue limit of one connection; each packet counts as its frame and 144 bytes. Beyond it the connection is closed and can recover. Volatile events are dropped from 64KiB on"`

	HandshakeRate           int      `section:"Limits" split_words:"true" default:"2000" within:"0 1000000" desc:"new connections per second; beyond it they are answered 503; 0 is no limit"`
	RoomsPerSocket          int      `split_words:"true" default:"1000" within:"1 100000" desc:"maximum number of rooms of a socket"`
	MembershipBudget        size     `split_words:"true" default:"0" within:"0 1024GiB" desc:"memory limit of the room memberships of all sockets together; one counts 640 bytes and 16 for each byte of the room's name. From three quarters of it on a socket can have its share of the rest, and always 16 memberships of 16KiB together. 0 stands for 5/32 of GOMEMLIMIT, or 512MiB if that is not set"`
	SessionRecoveries       int      `split_words:"true" default:"30" within:"1 1000000" desc:"burst of recoveries of one session on this node; then one per second. A recovery with many rooms counts as up to ten recoveries, and each 10 KiB of missed events that it reads counts as one more"`
	NamespacesPerConnection int      `split_words:"true" default:"16" within:"1 10000" desc:"maximum number of concurrent namespaces of one connection"`
	DynamicNamespaces       int      `split_words:"true" default:"10000" within:"1 1000000" desc:"maximum number of concurrent namespaces of a node that match a name with * in REJOIN_NAMESPACES; beyond it clients cannot enter further ones, and retry"`
	MailboxEvents           int      `split_words:"true" default:"2048" within:"1 1000000" desc:"received events of one socket that may be queued for their handlers; beyond it the connection is not read until half of them are handled"`
	MailboxBytes            size     `split_words:"true" default:"0" within:"0 1GiB" desc:"memory limit of these events, with the same effect; 0 stands for 1MiB, or REJOIN_MAX_PAYLOAD if that is more"`
	QueueBudget             size     `split_words:"true" default:"0" within:"0 1024GiB" desc:"memory limit of the send queues of all connections; beyond it connections that read nothing, or have the most queued, are closed and can recover. 0 stands for 3/32 of GOMEMLIMIT, or 512MiB if that is not set"`
	Connections             int      `split_words:"true" default:"0" within:"0 10000000" desc:"TCP connections at the public address; beyond it the one that has waited longest for its client is closed or, if none waits, the new one. 0 stands for three quarters of the descriptors that the process may open (ulimit -n), shared with forwarded requests and WebSockets"`
	Sessions                int      `split_words:"true" default:"0" within:"0 10000000" desc:"open connections of any transport, each of which takes 16 KiB or less while it is idle; beyond it new ones are answered 503. 0 stands for as many as fit in three eighths of GOMEMLIMIT, or no limit if that is not set"`
	UnconnectedSessions     int      `split_words:"true" default:"5000" within:"10 10000000" desc:"connections that have had no socket and are not connecting one; beyond it the oldest is closed"`
	ReceiveBudget           size     `split_words:"true" default:"0" within:"0 1024GiB" desc:"memory limit of all clients' events until they are handled, including packets that wait for binary attachments. Messages that have not arrived completely have an additional budget of half as much. From half of it on, connections whose events are queued for handlers are not read; beyond it the connection that holds the most is closed. 0 stands for 3/32 of GOMEMLIMIT, or 128MiB if that is not set, or twice REJOIN_MAX_PAYLOAD if that is more"`
	IdleConnections         int      `split_words:"true" default:"10000" within:"10 10000000" desc:"TCP connections with no pending request, or with one whose body is incomplete; beyond it the one that has waited longest is closed"`
	SocketEventRate         int      `split_words:"true" default:"1000" within:"0 1000000" desc:"events of one socket per second, with a burst of ten times as many; beyond it they are dropped and acked with rate_limited; 0 is no limit, here and for the rates below"`
	SocketByteRate          size     `split_words:"true" default:"4MiB" within:"0 16GiB" desc:"bytes of events of one socket per second, with a burst of ten times as many; the burst always allows one event of REJOIN_MAX_PAYLOAD"`
	UserEventRate           int      `split_words:"true" default:"4000" within:"0 1000000" desc:"events of all sockets that a user has on this node per second, with a burst of ten times as many; an IP address whose clients have no user has ten times that"`
	UserByteRate            size     `split_words:"true" default:"16MiB" within:"0 16GiB" desc:"bytes of events of all sockets that a user has on this node per second, with a burst of ten times as many; an IP address whose clients have no user has ten times that"`
	ReadRate                size     `split_words:"true" default:"1MiB" within:"0 16GiB" desc:"bytes that history and members read per second for a user, or for an IP address whose clients have no user, with a burst of ten times as many; beyond it they are delayed, or acked with rate_limited if the delay would exceed 3 seconds. It also limits the reads of recoveries beyond the allowance of REJOIN_SESSION_RECOVERIES, which delays large replays"`
	CopyRate                size     `split_words:"true" default:"512KiB" within:"0 16GiB" desc:"bytes that events and joins to several rooms may take in Redis per second for a user, or for an IP address whose clients have no user, with a burst of ten times as many. An event costs its size and 256 bytes for each room after the first, and 8KiB for each room without members and events. A join or leave costs the bytes of the session that it writes. The copies of one event in all its rooms may take at most REJOIN_MAX_PAYLOAD bytes together"`
	IPHandshakeRate         int      `split_words:"true" default:"100" within:"0 1000000" desc:"new connections of one IP address per second, with a burst of ten times as many; beyond it they are answered 429. An IPv6 network of 64 bits is one address. Loopback is not limited, nor are private networks, because a load balancer may be there, unless REJOIN_TRUSTED_PROXIES is set"`
	IPConnections           int      `split_words:"true" default:"5000" within:"0 10000000" desc:"open connections of one such IP address; beyond it new ones are answered 429. An address also never has more than REJOIN_SESSIONS leaves to others. TCP connections are limited to 6 times as many, except those of trusted proxies; 0 is no limit"`
	TrustedProxies          networks `split_words:"true" allowed:"a list of IP addresses or networks such as 10.0.0.0/8, separated by commas" desc:"proxies whose headers state the client's address and the host and scheme that it requested; without it, limits of IP addresses apply to the proxies as if they were clients"`
	ClientIPHeader          string   `split_words:"true" default:"X-Forwarded-For" pattern:"[A-Za-z0-9-]+" allowed:"the name of a header, such as Forwarded, CF-Connecting-IP or X-Real-IP" desc:"header in which trusted proxies send the client's address; with Forwarded (RFC 7239) also the host and scheme, which are otherwise in X-Forwarded-Host and X-Forwarded-Proto"`

	TLSCert string `section:"TLS" split_words:"true" allowed:"a PEM file, together with REJOIN_TLS_KEY" desc:"certificate, with its chain, for TLS on the public address; read again when the file changes"`
	TLSKey  string `split_words:"true" allowed:"a PEM file, together with REJOIN_TLS_CERT" desc:"private key of the certificate"`

	RecoveryWindow  time.Duration `section:"Recovery" split_words:"true" default:"2m" within:"0s 24h" desc:"how long a client may be disconnected and still recover; 0s disables recovery"`
	RecoveryClients string        `split_words:"true" default:"recognized" pattern:"recognized|requested|all" allowed:"recognized, requested, all" desc:"clients that can recover if they do not choose it themselves: those recognized as the JavaScript client, none, or all; see docs/clients.md"`
	BacklogLimit    int           `split_words:"true" default:"1000" within:"0 1000000" desc:"number of a room's newest events that can be replayed; up to about twice as many are stored. 0 disables recovery, and events are stored for a minute only"`
	BacklogBytes    size          `split_words:"true" default:"0" within:"0 1024GiB" desc:"without Redis, memory limit of the stored events of all rooms; beyond it those of the rooms that were silent the longest are dropped. 0 stands for 5/32 of GOMEMLIMIT, or 256MiB if that is not set"`
	BacklogTTL      time.Duration `split_words:"true" default:"1h" within:"1s 8760h" desc:"how long a room's events are stored after its last one"`
	ReplayLimit     int           `split_words:"true" default:"10000" within:"1 10000000" desc:"maximum number of missed events that a client can recover in all its rooms together. A second limit, twice as high, counts an event once for each of the client's rooms that it went to"`

	RedisURL      redisURL      `section:"Cluster" split_words:"true" secret:"true" allowed:"redis://, rediss://, redis+sentinel:// or redis+cluster:// with host and port" desc:"Redis that the nodes of a cluster share; without it this is a single node"`
	RedisPrefix   string        `split_words:"true" default:"rejoin:" pattern:"[A-Za-z0-9:._-]{0,64}" allowed:"up to 64 letters, digits and : . _ -" desc:"prefix of the names of all keys and channels in Redis; the same on all nodes"`
	Partitions    int           `split_words:"true" default:"0" within:"0 64" desc:"number of partitions of the rooms, each with its own order; the same on all nodes. 0 stands for 6 in a Redis Cluster, whose servers share them, and 1 otherwise"`
	RedisTimeout  time.Duration `split_words:"true" default:"3s" within:"100ms 1m" desc:"maximum time of one call to Redis, and of an event that waits for Redis to recover"`
	AllowEviction bool          `split_words:"true" default:"false" desc:"use a Redis whose maxmemory-policy is not noeviction, although clients may then miss events without notice"`
	ClusterSecret secret        `split_words:"true" secret:"true" allowed:"16 characters or more" desc:"signs requests between the nodes of a cluster; the same on all nodes, and required with REJOIN_REDIS_URL"`
	AdvertiseAddr address       `split_words:"true" allowed:"host:port" desc:"address at which other nodes reach the internal address. If not set, the internal address, with this machine's first address in place of all interfaces and the actual port in place of 0"`

	APIKeys    apiKeys    `section:"Backends" split_words:"true" secret:"true" pattern:"[!-~]+" allowed:"a list of different keys of visible ASCII characters, separated by commas" desc:"keys that authenticate backends at the internal port, for /api/v1 and /debug/pprof; several are allowed, so that one can replace another; without a key both answer 403"`
	APICallers apiCallers `split_words:"true" secret:"true" allowed:"a JSON object: its names are those of at most 100 callers, its values objects with keys, calls, namespaces and rooms, each a list; all but keys are optional" desc:"backends with a name for logs and metrics, keys of their own, and a scope: the calls that they may make, and patterns of the namespaces and rooms that they may name (docs/api.md)"`

	HookURL         hookURL       `section:"Questions to your backend" split_words:"true" secret:"true" allowed:"an https URL, or http for a loopback address" desc:"where the node asks who may connect and what to do with events (docs/hooks.md); no questions if not set"`
	HookSecrets     hookSecrets   `split_words:"true" secret:"true" allowed:"a list of different secrets of Standard Webhooks, each whsec_ and 24 to 64 bytes in base64, separated by commas" desc:"sign the questions; several sign each question, so that one can replace another; required with REJOIN_HOOK_URL"`
	HookConnect     bool          `split_words:"true" default:"false" desc:"ask whether a client may connect, after its token if authentication is configured; without one this is the authentication"`
	HookEvents      names         `split_words:"true" pattern:"[^*]+[*]?|[*]" allowed:"a list of names of events, or prefixes followed by *, separated by commas" desc:"events that the backend handles. A pattern with * matches only events that the node does not know itself; others must be named in full, and token and once cannot be"`
	HookHeaders     names         `split_words:"true" pattern:"[A-Za-z0-9-]+" allowed:"a list of names of headers, separated by commas" desc:"headers of a client's first request, such as cookie, that the question whether it may connect includes; none if not set"`
	HookTimeout     time.Duration `split_words:"true" default:"5s" within:"100ms 30s" desc:"time limit of a question, with all attempts and the wait for its turn"`
	HookConcurrency int           `split_words:"true" default:"128" within:"1 10000" desc:"questions of this node in flight; eight times as many may wait, and all of them together may have 16 MiB; beyond that events are acked with busy, and connecting clients try again"`
	HookAllowHTTP   bool          `split_words:"true" default:"false" desc:"allow REJOIN_HOOK_URL to be http for other addresses than loopback, although everybody on the way can then read the questions and change the answers"`

	DrainDelay  time.Duration `section:"Draining" split_words:"true" default:"5s" within:"0s 10m" desc:"how long the node serves after SIGTERM, though not ready, until its balancer sends new clients elsewhere"`
	DrainBudget time.Duration `split_words:"true" default:"20s" within:"0s 1h" desc:"time over which the connections are closed after the delay; 0s closes all immediately, as SIGINT does without any delay"`

	ClientDir string `section:"Client files, logs and node ID" split_words:"true" allowed:"a folder with all files of a client bundle" desc:"folder to serve the JavaScript client from, instead of the built-in one"`
	Demo      bool   `split_words:"true" default:"true" desc:"serve the demo page at /"`
	LogLevel  string `split_words:"true" file:"true" default:"info" pattern:"debug|info|warn|error" allowed:"debug, info, warn, error" desc:"minimum level of log lines"`
	LogFormat string `split_words:"true" default:"json" pattern:"json|console" allowed:"json, console" desc:"format of log lines"`
	NodeID    string `split_words:"true" pattern:"([A-Za-z0-9_-]{4})?" allowed:"4 characters of A-Z, a-z, 0-9, _ and -" desc:"id of this node, the first 4 characters of its engine session ids; random if not set"`
}

// validate checks conditions on several fields. Each value is allowed: a
// refused value was replaced by its default.
func (c *config) validate(r *report) {
	if !c.AllowAnonymous {
		if !c.Addr.loopback() && !c.authenticates() && !c.HookConnect {
			r.refuse("REJOIN_ADDR", c.Addr, "a loopback address unless authentication is configured (REJOIN_JWT_SECRET, REJOIN_JWT_PUBLIC_KEY, REJOIN_JWKS_URL or REJOIN_HOOK_CONNECT) or REJOIN_ALLOW_ANONYMOUS=true, because otherwise any client that reaches the node can connect")
		}
		if !c.InternalAddr.loopback() && c.ClusterSecret == "" && len(c.APIKeys.list)+len(c.APICallers.all) == 0 {
			r.refuse("REJOIN_INTERNAL_ADDR", c.InternalAddr, "a loopback address unless REJOIN_CLUSTER_SECRET, REJOIN_API_KEYS, REJOIN_API_CALLERS or REJOIN_ALLOW_ANONYMOUS=true is set, because the internal port requires no other credentials")
		}
	}
	switch n := len(c.ClusterSecret); {
	case n == 0 && c.RedisURL.target != nil:
		r.refuse("REJOIN_CLUSTER_SECRET", c.ClusterSecret, "set, and the same on all nodes, because REJOIN_REDIS_URL makes this node part of a cluster")
	case n > 0 && n < minSecret:
		r.warn("REJOIN_CLUSTER_SECRET has only %d characters: with fewer than %d it can be guessed", n, minSecret)
	}
	for i, key := range c.APIKeys.list {
		if len(key) < minSecret {
			r.warn("key %d of REJOIN_API_KEYS has only %d characters: with fewer than %d it can be guessed", i+1, len(key), minSecret)
		}
	}
	for _, caller := range c.APICallers.all {
		if slices.ContainsFunc(caller.Keys, func(key string) bool { return slices.Contains(c.APIKeys.list, key) }) {
			r.refuse("REJOIN_API_CALLERS", c.APICallers, fmt.Sprintf("without keys of REJOIN_API_KEYS, which may do everything (caller %s has one)", caller.Name))
		}
	}
	if c.Addr.collides(c.InternalAddr) {
		r.refuse("REJOIN_INTERNAL_ADDR", c.InternalAddr, "another address than REJOIN_ADDR")
	}
	if c.Demo && strings.HasPrefix(c.Path, "/demo/") {
		r.refuse("REJOIN_PATH", c.Path, "outside /demo/, where the demo page has its files, or REJOIN_DEMO=false")
	}
	switch h := c.HealthPath; {
	case h == "":
	case strings.HasPrefix(h+"/", c.Path):
		r.refuse("REJOIN_HEALTH_PATH", h, "outside REJOIN_PATH")
	case c.Demo && strings.HasPrefix(h+"/", "/demo/"):
		r.refuse("REJOIN_HEALTH_PATH", h, "outside /demo/, where the demo page has its files, or REJOIN_DEMO=false")
	}
	if c.ClientDir != "" {
		if _, _, err := client.Open(c.ClientDir); err != nil {
			r.refuse("REJOIN_CLIENT_DIR", c.ClientDir, fmt.Sprintf("a folder with all files of a client bundle (%v)", err))
		}
	}
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		r.refuse("REJOIN_TLS_CERT", c.TLSCert, "set together with REJOIN_TLS_KEY")
	case c.TLSCert != "":
		if _, err := certs.Open(c.TLSCert, c.TLSKey, zap.NewNop()); err != nil {
			r.refuse("REJOIN_TLS_CERT", c.TLSCert, fmt.Sprintf("a certificate in PEM form that belongs to REJOIN_TLS_KEY (%v)", err))
		}
	}
	if c.QueueBudget > 0 && c.QueueBudget < c.SendQueueBytes {
		r.refuse("REJOIN_QUEUE_BUDGET", int(c.QueueBudget), fmt.Sprintf("at least REJOIN_SEND_QUEUE_BYTES (%d), the send queue limit of one connection", c.SendQueueBytes))
	}
	if maximum := limit.Descriptors(); c.Connections > maximum && maximum > 0 {
		r.warn("REJOIN_CONNECTIONS is %d, but this process may have only %d descriptors open (ulimit -n)", c.Connections, maximum)
	}
	if len(c.TrustedProxies) == 0 && !strings.EqualFold(c.ClientIPHeader, "X-Forwarded-For") {
		r.warn("REJOIN_CLIENT_IP_HEADER has no effect without REJOIN_TRUSTED_PROXIES")
	}
	c.validateAuthentication(r)
	c.validateClaims(r)
	c.validateHooks(r)
	c.validateRecovery(r)
}

// authenticates reports whether clients must present a token.
func (c *config) authenticates() bool {
	return c.JWTSecret != "" || c.JWTPublicKey != "" || c.JwksURL != ""
}

// minJWTSecret is the minimum length of an HS256 key (RFC 7518).
const minJWTSecret = 32

func (c *config) validateAuthentication(r *report) {
	if n := len(c.JWTSecret); n > 0 && n < minSecret {
		r.refuse("REJOIN_JWT_SECRET", c.JWTSecret, "at least 16 characters: a shorter secret can be guessed by anyone who has one token")
	} else if n > 0 && n < minJWTSecret {
		r.warn("REJOIN_JWT_SECRET has only %d bytes: RFC 7518 requires at least %d, so that it cannot be derived from a token", n, minJWTSecret)
	}
	if c.JwksURL != "" && c.JWTAudience == "" {
		r.warn("REJOIN_JWT_AUDIENCE is not set: tokens that the server of REJOIN_JWKS_URL has issued for other services are valid here, too")
	}
	if c.JwksURL.plain() {
		r.warn("REJOIN_JWKS_URL is not https: the keys can be replaced in transit")
	}
	if !c.authenticates() && (c.JWTIssuer != "" || c.JWTAudience != "") {
		r.warn("REJOIN_JWT_ISSUER and REJOIN_JWT_AUDIENCE have no effect without a key: clients need no token")
	}
}

// validateRecovery checks the settings of recovery. If backlogs expired before the sessions that need
// them, clients that reconnect within the window would not be recovered.
func (c *config) validateRecovery(r *report) {
	if c.RecoveryWindow == 0 {
		return
	}
	if c.BacklogLimit == 0 {
		r.warn("REJOIN_BACKLOG_LIMIT=0: missed events cannot be replayed, so recovery is off; set REJOIN_RECOVERY_WINDOW=0s to make this explicit")
		return
	}
	refresh := socketio.RefreshPeriod(c.RecoveryWindow)
	if minimum := c.RecoveryWindow + c.PingInterval + c.PingTimeout + refresh + 10*time.Second; c.BacklogTTL < minimum {
		r.refuse("REJOIN_BACKLOG_TTL", c.BacklogTTL, fmt.Sprintf(
			"%v or more, so that backlogs outlive sessions: REJOIN_RECOVERY_WINDOW (%v), REJOIN_PING_INTERVAL (%v), REJOIN_PING_TIMEOUT (%v), the sessions' refresh period (%v) and 10s",
			minimum, c.RecoveryWindow, c.PingInterval, c.PingTimeout, refresh))
	}
}

// recovers reports whether clients can recover.
func (c *config) recovers() bool { return c.RecoveryWindow > 0 && c.BacklogLimit > 0 }

// Events of a room that are stored without recovery: a socket that a command joins to the
// room reads from them the events that were published before its node had subscribed.
const (
	joinBacklogLimit = 1000
	joinBacklogTTL   = time.Minute
)

// backlogs returns the number of a room's stored events and their TTL.
func (c *config) backlogs() (limit int, ttl time.Duration) {
	if c.BacklogLimit == 0 {
		return joinBacklogLimit, joinBacklogTTL
	}
	return c.BacklogLimit, c.BacklogTTL
}

// clockTTL is the time for which a client's offset can be checked against the clock: longer
// than its session can exist.
func (c *config) clockTTL() time.Duration {
	return c.RecoveryWindow + c.PingInterval + c.PingTimeout + socketio.RefreshPeriod(c.RecoveryWindow) + time.Minute
}

// partitions returns the number of partitions.
func (c *config) partitions() int {
	switch {
	case c.Partitions > 0:
		return c.Partitions
	case c.RedisURL.target.Form() == redisurl.Cluster:
		return 6
	}
	return 1
}
