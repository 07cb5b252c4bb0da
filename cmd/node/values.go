package main

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/rejoin-io/rejoin/internal/api"
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

// An address is a listening address, or one at which other nodes reach this node. The host "" means
// all interfaces, the port 0 a free one; the zero value means not set.
type address struct {
	host string
	port uint16
}

func (a *address) Decode(s string) error {
	if s == "" {
		return nil
	}
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

// A list has its elements separated by commas. No element is a duplicate. Blanks around them are
// ignored.
type list []string

func (l *list) Decode(s string) error {
	*l = nil
	for element := range strings.SplitSeq(s, ",") {
		element = strings.TrimSpace(element)
		if slices.Contains(*l, element) {
			return errNotAllowed
		}
		*l = append(*l, element)
	}
	return nil
}

func (l list) elements() []string { return l }

// origins are the web origins that may connect in addition to the node's own.
type origins []string

func (o *origins) Decode(s string) error {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	if err := (*list)(o).Decode(s); err != nil {
		return err
	}
	if _, err := engineio.ParseOrigins(*o); err != nil {
		return &adviceError{err}
	}
	return nil
}

// An adviceError explains why a value is refused. It contains no secret.
type adviceError struct{ error }

// A redisURL is the address of Redis; the zero value means no Redis.
type redisURL struct{ target *redisurl.Target }

func (u *redisURL) Decode(s string) (err error) {
	if s == "" {
		return nil
	}
	if u.target, err = redisurl.Parse(s); err != nil {
		return &adviceError{err}
	}
	return nil
}

// String shows no credentials.
func (u redisURL) String() string {
	if u.target == nil {
		return ""
	}
	return u.target.String()
}

// minSecret is the minimum length of a secret.
const minSecret = 16

// A secret is never shown.
type secret string

func (s secret) String() string { return hidden(s != "") }

// hidden stands for a value that is not shown.
func hidden(set bool) string {
	if !set {
		return ""
	}
	return "(not shown)"
}

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

// A jwksURL is the address of a key set. It may contain a password, or a key in its query, so it is
// never shown.
type jwksURL string

func (u *jwksURL) Decode(s string) error {
	parsed, err := url.Parse(s)
	if err != nil || s != "" && (parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "") {
		return errNotAllowed
	}
	*u = jwksURL(s)
	return nil
}

// plain reports whether the key set is fetched without TLS, so that it can be changed in
// transit.
func (u jwksURL) plain() bool {
	parsed, err := url.Parse(string(u))
	return err == nil && parsed.Scheme == "http" && !address{host: parsed.Hostname()}.loopback()
}

func (u jwksURL) String() string { return hidden(u != "") }

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

// apiKeys are never shown.
type apiKeys struct{ list }

func (k *apiKeys) Decode(s string) error {
	if s == "" {
		return nil
	}
	return k.list.Decode(s)
}

func (k apiKeys) String() string { return hidden(len(k.list) > 0) }

// An apiCallers holds backends with names and scopes. It is never shown.
type apiCallers struct{ all []api.Caller }

func (c *apiCallers) Decode(s string) (err error) {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	if c.all, err = api.ParseCallers(s); err != nil {
		return &adviceError{err}
	}
	return nil
}

func (c apiCallers) String() string { return hidden(len(c.all) > 0) }

// networks are IP addresses and networks.
type networks []netip.Prefix

func (n *networks) Decode(s string) error {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	var elements list
	if err := elements.Decode(s); err != nil {
		return err
	}
	for _, element := range elements {
		network, err := netip.ParsePrefix(element)
		if err != nil {
			addr, err := netip.ParseAddr(element)
			if err != nil || addr.Zone() != "" {
				return errNotAllowed
			}
			network = netip.PrefixFrom(addr, addr.BitLen())
		}
		if network.Addr().Is4In6() { // would contain nothing: addresses are compared in their short form
			return errNotAllowed
		}
		*n = append(*n, network.Masked())
	}
	return nil
}
