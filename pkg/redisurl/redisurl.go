// Package redisurl parses the location of Redis from one URL, and finds the server there that takes
// the writes.
//
//	redis://user:password@host:6379/0
//	redis+sentinel://user:password@host1:26379/0?addr=host2:26379&master_name=m
//	redis+cluster://user:password@host1:6379?addr=host2:6379
//
// With rediss in place of redis all connections use TLS, and each server, including Sentinels, must
// present a certificate for the name or address that is dialled (skip_verify=true disables the
// check). Additional parameters:
//
//	server_name     the name in the servers' certificates, if it is not the one dialled
//	ca_file         PEM file of the authorities that sign them, in place of the system's
//	cert_file       PEM file of the client's certificate, and
//	key_file        of its private key; both are read for each connection
//	password_file   file of the servers' password, read for each connection
//
// The user and password of a Sentinel URL are the Sentinels'; those of the servers behind them are
// its parameters username and password. The other parameters are those of go-redis (dial_timeout,
// read_timeout, pool_size, client_name, …), except four that are fixed here: commands that may have
// run are not retried, contexts bound the reads and writes, the protocol is RESP2, and connections
// do not identify the client library.
package redisurl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// A Form is a deployment form of Redis.
type Form string

// The forms.
const (
	Single   Form = "single"   // one server
	Sentinel Form = "sentinel" // a primary and its replicas, watched by Sentinels
	Cluster  Form = "cluster"  // slots shared by several primaries
)

// A Target is the location of Redis. It holds no connections; its methods are safe for concurrent
// use.
type Target struct {
	form   Form
	name   string                   // for logs
	server redis.Options            // of each server; Addr is set for Single only
	seeds  []string                 // the Sentinels, or nodes of the Cluster
	files  files                    // files named by the URL
	master string                   // the Sentinels' name of the primary
	ask    *redis.Options           // options for a Sentinel
	known  atomic.Pointer[[]string] // the nodes in the newest map of the Cluster

	failover *redis.FailoverOptions
	cluster  *redis.ClusterOptions
}

// Parse parses a URL. An error names the part that is wrong, and does not contain the user or
// password.
func Parse(raw string) (*Target, error) {
	u, err := parts(raw)
	if err != nil {
		return nil, fmt.Errorf("redisurl: %w", err)
	}
	t := &Target{name: u.Scheme + "://"}
	t.files = takeFiles(u)
	switch u.Scheme {
	case "redis", "rediss":
		t.form = Single
	case "redis+sentinel", "rediss+sentinel":
		t.form = Sentinel
	case "redis+cluster", "rediss+cluster":
		t.form = Cluster
	default:
		return nil, fmt.Errorf("redisurl: unknown scheme %q: must be redis or rediss, alone or with +sentinel or +cluster", u.Scheme)
	}
	u.Scheme, _, _ = strings.Cut(u.Scheme, "+") // in the form that go-redis knows
	switch t.form {
	case Single:
		err = t.parseServer(u, u.Query())
		t.seeds = []string{t.server.Addr}
	case Sentinel:
		err = t.parseSentinel(u)
	case Cluster:
		err = t.parseCluster(u)
	}
	if err != nil {
		return nil, fmt.Errorf("redisurl: %w", err)
	}
	t.name += strings.Join(t.seeds, ",")
	return t, nil
}

// parseServer parses the parameters of servers of all forms.
func (t *Target) parseServer(u *url.URL, query url.Values) error {
	base := *u
	base.RawQuery = query.Encode()
	o, err := redis.ParseURL(base.String())
	if err != nil {
		return parameter(u, err)
	}
	if o.TLSConfig != nil {
		o.TLSConfig.ServerName = "" // the dialled name, rather than the URL's for all
	}
	if err := t.files.configure(o.TLSConfig); err != nil {
		return err
	}
	o.MaxRetries = -1
	o.ContextTimeoutEnabled = true
	o.Protocol = 2
	o.DisableIdentity = true
	o.MaintNotificationsConfig = quiet()
	o.DialerRetries = 1 // callers retry if they need to
	if o.DialTimeout == 0 {
		o.DialTimeout = 5 * time.Second
	}
	o.Dialer = dialer(o.DialTimeout, o.TLSConfig)
	t.server = *o
	if t.form != Sentinel { // with Sentinel, the URL's user and password are for the Sentinels
		return t.readPassword()
	}
	return nil
}

// readPassword makes go-redis read the servers' password from its file, if the URL names one.
func (t *Target) readPassword() error {
	if t.files.password == "" {
		return nil
	}
	if t.server.Password != "" {
		return errors.New("both password and password_file in the URL: remove one")
	}
	if _, err := t.files.readPassword(); err != nil {
		return err
	}
	user := t.server.Username
	t.server.CredentialsProviderContext = func(context.Context) (string, string, error) {
		password, err := t.files.readPassword()
		return user, password, err
	}
	return nil
}

func (t *Target) parseSentinel(u *url.URL) error {
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "26379")
	}
	o, err := redis.ParseFailoverURL(u.String())
	switch {
	case err != nil:
		return parameter(u, err)
	case o.MasterName == "":
		return errors.New("missing parameter master_name")
	case o.RouteByLatency || o.RouteRandomly || o.ReplicaOnly:
		return errReplicas
	}
	if err := t.parseServer(u, common(u.Query())); err != nil {
		return err
	}
	t.seeds, t.master = o.SentinelAddrs, o.MasterName
	t.ask = t.at("")
	t.ask.DB = 0
	t.server.Username, t.server.Password = o.Username, o.Password
	t.server.Addr = ""
	if err := t.readPassword(); err != nil {
		return err
	}

	o.MaxRetries = -1
	o.ContextTimeoutEnabled = true
	o.Protocol = 2
	o.DisableIdentity = true
	o.DialerRetries = 1
	o.Dialer, o.TLSConfig = t.server.Dialer, t.server.TLSConfig
	t.failover = o
	return nil
}

func (t *Target) parseCluster(u *url.URL) error {
	if strings.Trim(u.Path, "/0") != "" {
		return errors.New("only database 0 exists in a Redis Cluster")
	}
	query := u.Query()
	query.Del("skip_verify") // which go-redis does not know here
	full := *u
	full.RawQuery = query.Encode()
	o, err := redis.ParseClusterURL(full.String())
	switch {
	case err != nil:
		return parameter(u, err)
	case o.ReadOnly || o.RouteByLatency || o.RouteRandomly:
		return errReplicas
	}
	if err := t.parseServer(u, common(u.Query())); err != nil {
		return err
	}
	t.seeds = o.Addrs
	t.server.Addr = ""

	o.MaxRetries = -1
	o.ContextTimeoutEnabled = true
	o.Protocol = 2
	o.DisableIdentity = true
	o.MaintNotificationsConfig = quiet()
	o.DialerRetries = 1
	o.Dialer, o.TLSConfig = t.server.Dialer, t.server.TLSConfig
	o.CredentialsProviderContext = t.server.CredentialsProviderContext
	t.cluster = o
	return nil
}

var errReplicas = errors.New("reads must not be routed to replicas, which lag behind")

// common returns the parameters that go-redis also accepts for one server.
func common(query url.Values) url.Values {
	for _, special := range []string{
		"addr", "master_name", "username", "password", "max_redirects", "read_only", "replica_only", "route_by_latency",
		"route_by_latency_tolerance", "route_randomly", "use_disconnected_replicas", "failing_timeout_seconds",
		"dialer_retries", "dialer_retry_timeout", "context_timeout_enabled", "disableIdentity", "identitySuffix", "unstable_resp3",
	} {
		query.Del(special)
	}
	return query
}

// quiet disables maintenance notifications, each time in a new copy, because go-redis changes it.
func quiet() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// dialer replaces go-redis' own, which does not observe the context over TLS.
func dialer(timeout time.Duration, config *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: timeout}
	if config == nil {
		return plain.DialContext
	}
	secure := &tls.Dialer{NetDialer: plain, Config: config}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := secure.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if c, ok := conn.(*tls.Conn); ok {
			return &tlsConn{c}, nil
		}
		return conn, nil
	}
}

// A tlsConn is a connection that go-redis can check before reuse. A server that closes an idle
// connection leaves an alert in it, or its end, and either makes go-redis dial again instead of
// failing the call.
type tlsConn struct{ *tls.Conn }

func (c *tlsConn) SyscallConn() (syscall.RawConn, error) {
	raw, ok := c.NetConn().(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return raw.SyscallConn()
}

// Form returns the deployment form.
func (t *Target) Form() Form { return t.form }

// String returns the scheme and the addresses, without credentials.
func (t *Target) String() string { return t.name }

// at returns new options for the server with an address.
func (t *Target) at(addr string) *redis.Options {
	o := t.server
	o.Addr = addr
	o.MaintNotificationsConfig = quiet()
	return &o
}

// Client returns a new client for commands on all keys, which the caller closes.
//
// In a Cluster go-redis follows slots that have moved, and, up to the same count (max_redirects),
// repeats a command whose connection broke, though it may have run, unless its NoRetry method
// returns true.
func (t *Target) Client() redis.UniversalClient {
	switch t.form {
	case Sentinel:
		if t.files.password != "" { // which a failover client cannot read
			o := t.at("")
			dial := o.Dialer
			o.Dialer = func(ctx context.Context, network, _ string) (net.Conn, error) {
				primary, err := t.Primary(ctx, "")
				if err != nil {
					return nil, err
				}
				return dial(ctx, network, primary.Addr)
			}
			return redis.NewClient(o)
		}
		o := *t.failover
		o.SentinelAddrs = slices.Clone(o.SentinelAddrs)
		return redis.NewFailoverClient(&o)
	case Cluster:
		o := *t.cluster
		o.Addrs = slices.Clone(o.Addrs)
		o.MaintNotificationsConfig = quiet()
		return redis.NewClusterClient(&o)
	default:
		return redis.NewClient(t.at(t.server.Addr))
	}
}
