package main

import (
	"errors"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/redisurl"
)

// The types of this file have no notation of their own in Go. Each one's
// Decode, an [envconfig.Decoder], accepts the values that the variable may
// have. The tags of config describe these, so its error can be short.
var errNotAllowed = errors.New("not allowed")

// A size is a number of bytes, written plainly or in KiB, MiB or GiB.
type size int

func (z *size) Decode(s string) error {
	unit := 1
	for name, bytes := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if digits, ok := strings.CutSuffix(s, name); ok {
			s, unit = strings.TrimSpace(digits), bytes
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return err
	}
	if n < 0 || n > math.MaxInt/unit {
		return errNotAllowed
	}
	*z = size(n * unit)
	return nil
}

// An address is a listening address. The host "" means all interfaces, the port
// 0 a free one.
type address struct {
	host string
	port uint16
}

func (a *address) Decode(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	*a = address{host, uint16(n)}
	return nil
}

func (a address) String() string {
	return net.JoinHostPort(a.host, strconv.Itoa(int(a.port)))
}

// loopback reports whether only this machine can reach the address.
func (a address) loopback() bool {
	ip := net.ParseIP(a.host)
	return a.host == "localhost" || ip != nil && ip.IsLoopback()
}

// wildcard reports whether the address means all interfaces.
func (a address) wildcard() bool {
	ip := net.ParseIP(a.host)
	return a.host == "" || ip != nil && ip.IsUnspecified()
}

// collides reports whether two listeners cannot use these addresses together.
func (a address) collides(b address) bool {
	return a.port == b.port && a.port != 0 && (a.host == b.host || a.host == "" || b.host == "")
}

// A urlPath is the common path of a subtree of URLs.
type urlPath string

var wellFormedPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+/$`)

func (p *urlPath) Decode(s string) error {
	if !wellFormedPath.MatchString(s) || path.Clean(s)+"/" != s {
		return errNotAllowed
	}
	*p = urlPath(s)
	return nil
}

// A healthPath is one path, "" for none.
type healthPath string

var wellFormedHealthPath = regexp.MustCompile(`^((/[A-Za-z0-9._~-]+)+)?$`)

func (p *healthPath) Decode(s string) error {
	if !wellFormedHealthPath.MatchString(s) || s != "" && path.Clean(s) != s {
		return errNotAllowed
	}
	*p = healthPath(s)
	return nil
}

type namespaces []string

func (n *namespaces) Decode(s string) (err error) {
	*n, err = splitDistinct(s, func(name string) bool {
		return strings.HasPrefix(name, "/") && !strings.Contains(name, "?")
	})
	return err
}

type transports []string

func (t *transports) Decode(s string) (err error) {
	*t, err = splitDistinct(s, func(name string) bool { return name == "polling" || name == "websocket" })
	return err
}

// origins are the web origins that may connect in addition to the node's own.
type origins []string

func (o *origins) Decode(s string) (err error) {
	*o = nil
	if strings.TrimSpace(s) == "" {
		return nil
	}
	if *o, err = splitDistinct(s, func(string) bool { return true }); err != nil {
		return err
	}
	if _, err = engineio.ParseOrigins(*o); err != nil {
		return &adviceError{err}
	}
	return nil
}

// An adviceError explains why a value is refused. The value is not a secret.
type adviceError struct{ error }

// A headerName is the name of an HTTP header.
type headerName string

var wellFormedHeader = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

func (h *headerName) Decode(s string) error {
	if !wellFormedHeader.MatchString(s) {
		return errNotAllowed
	}
	*h = headerName(http.CanonicalHeaderKey(s))
	return nil
}

// A nodeID is the beginning of the engine's session ids; "" means a random one.
type nodeID string

var wellFormedNodeID = regexp.MustCompile(`^([A-Za-z0-9_-]{4})?$`)

func (id *nodeID) Decode(s string) error {
	if !wellFormedNodeID.MatchString(s) {
		return errNotAllowed
	}
	*id = nodeID(s)
	return nil
}

// splitDistinct splits a list at its commas. There must be an element, ok must
// hold for each, and none may be a duplicate. Blanks around them are ignored.
func splitDistinct(s string, ok func(string) bool) ([]string, error) {
	var elements []string
	for element := range strings.SplitSeq(s, ",") {
		element = strings.TrimSpace(element)
		if !ok(element) || slices.Contains(elements, element) {
			return nil, errNotAllowed
		}
		elements = append(elements, element)
	}
	return elements, nil
}

// A redisURL is the address of Redis; the zero value means no Redis.
type redisURL struct{ target *redisurl.Target }

func (u *redisURL) Decode(s string) (err error) {
	if s != "" {
		u.target, err = redisurl.Parse(s)
	}
	return err
}

// String shows no credentials.
func (u redisURL) String() string {
	if u.target == nil {
		return ""
	}
	return u.target.String()
}

// A secret is never shown.
type secret string

// A publicKeys is PEM. It is not a secret, but is not shown either, because it may be a private
// key by mistake.
type publicKeys string

func (p *publicKeys) Decode(s string) error {
	if s != "" {
		v, err := auth.New(auth.Options{PublicKeys: []byte(s)})
		if err != nil {
			return err
		}
		v.Close()
	}
	*p = publicKeys(s)
	return nil
}

// A jwksURL is the address of a key set; the zero value means none. It may
// contain a password, or a key in its query, so it is never shown.
type jwksURL struct{ url *url.URL }

func (u *jwksURL) Decode(s string) (err error) {
	if s == "" {
		return nil
	}
	parsed, err := url.Parse(s)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return errNotAllowed
	}
	u.url = parsed
	return nil
}

func (u jwksURL) set() bool { return u.url != nil }

// text is the whole URL, for the code that requests it.
func (u jwksURL) text() string {
	if u.url == nil {
		return ""
	}
	return u.url.String()
}

// plain reports whether the key set is fetched from another host without TLS, so that it can be changed in
// transit.
func (u jwksURL) plain() bool {
	if u.url == nil || u.url.Scheme == "https" {
		return false
	}
	ip := net.ParseIP(u.url.Hostname())
	return u.url.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

func (u jwksURL) String() string {
	if u.url == nil {
		return ""
	}
	return "(not shown)"
}

// A permissions holds the permissions of clients; nil if they are not set.
type permissions struct{ can *auth.Permissions }

func (p *permissions) Decode(s string) error {
	if s == "" {
		return nil
	}
	can, err := auth.ParsePermissions(s)
	p.can = &can
	return err
}

// or returns the permissions, or others if they are not set.
func (p permissions) or(others auth.Permissions) auth.Permissions {
	if p.can == nil {
		return others
	}
	return *p.can
}

// leastSecret is the minimum length of a secret.
const leastSecret = 16

func (s *secret) Decode(v string) error {
	*s = secret(v)
	return nil
}

func (s secret) String() string {
	if s == "" {
		return ""
	}
	return "(not shown)"
}

// apiKeys are never shown.
type apiKeys []string

var wellFormedAPIKey = regexp.MustCompile(`^[!-~]+$`)

func (k *apiKeys) Decode(s string) (err error) {
	if s == "" {
		return nil
	}
	*k, err = splitDistinct(s, wellFormedAPIKey.MatchString)
	return err
}

func (k apiKeys) String() string {
	if len(k) == 0 {
		return ""
	}
	return "(not shown)"
}

// A peerAddress is the address at which other nodes reach this node; the zero
// value means not set.
type peerAddress struct{ address }

func (a *peerAddress) Decode(s string) error {
	if s == "" {
		return nil
	}
	return a.address.Decode(s)
}

// A keyPrefix is the prefix of the names of keys.
type keyPrefix string

var wellFormedPrefix = regexp.MustCompile(`^[A-Za-z0-9:._-]{0,64}$`)

func (p *keyPrefix) Decode(s string) error {
	if !wellFormedPrefix.MatchString(s) {
		return errNotAllowed
	}
	*p = keyPrefix(s)
	return nil
}

// networks are IP addresses and networks.
type networks []netip.Prefix

func (n *networks) Decode(s string) error {
	*n = nil
	if strings.TrimSpace(s) == "" {
		return nil
	}
	_, err := splitDistinct(s, func(element string) bool {
		network, err := netip.ParsePrefix(element)
		if err != nil {
			addr, err := netip.ParseAddr(element)
			if err != nil || addr.Zone() != "" {
				return false
			}
			network = netip.PrefixFrom(addr, addr.BitLen())
		}
		if network.Addr().Is4In6() { // would contain nothing: addresses are compared in their short form
			return false
		}
		*n = append(*n, network.Masked())
		return true
	})
	return err
}
