package limit

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the proxies in front of a node whose headers contain the client's address
// and the host and scheme that it requested.
type Proxies struct {
	// Networks are those of the proxies. Headers of other peers are ignored.
	Networks []netip.Prefix
	// Header is the one header that has the client's address: X-Forwarded-For by
	// default, Forwarded (RFC 7239), or one with a single address such as
	// CF-Connecting-IP. The others are ignored because a client may have sent them.
	Header string
}

// Handler restores requests that a proxy has forwarded to the form in which the client sent them:
//
//   - RemoteAddr is the rightmost address in Header that is not a proxy's, without a port. Any
//     client may have written the values to the left of it. A value that is not an address ends the
//     search at the last proxy before it.
//   - Host and URL.Scheme are those of X-Forwarded-Host and X-Forwarded-Proto; with
//     Forwarded, those of the element that has the address.
func (p Proxies) Handler(next http.Handler) http.Handler {
	if len(p.Networks) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.contain(address(r.RemoteAddr)) {
			r = p.original(r)
		}
		next.ServeHTTP(w, r)
	})
}

// A hop is one proxy's description of the request that it received.
type hop struct{ client, host, scheme string }

// original returns a changed copy of a request that a proxy has forwarded.
func (p Proxies) original(r *http.Request) *http.Request {
	r = r.WithContext(r.Context()) // a copy; the caller's is unchanged
	last := hop{client: r.RemoteAddr}
	for _, h := range slices.Backward(p.hops(r.Header)) {
		addr := address(strings.TrimSuffix(strings.TrimPrefix(h.client, "["), "]")) // IPv6 without a port may have brackets
		if !addr.IsValid() {
			addr = address(h.client)
		}
		if !addr.IsValid() {
			break
		}
		last = h
		last.client = addr.String()
		if !p.contain(addr) {
			break
		}
	}
	r.RemoteAddr = last.client
	if !p.forwarded() {
		// The leftmost value is the one that the client requested. The client itself may have
		// written it, which is harmless: a client that is not a web page can send any Host, and web
		// pages cannot send these headers before a preflight has allowed them.
		last.host, last.scheme = first(r.Header, "X-Forwarded-Host"), first(r.Header, "X-Forwarded-Proto")
	}
	if last.host != "" {
		r.Host = last.host
	}
	switch scheme := strings.ToLower(last.scheme); scheme {
	case "http", "https", "ws", "wss":
		u := *r.URL
		u.Scheme, u.Host = scheme, "" // as engineio reads it
		r.URL = &u
	}
	return r
}

func first(h http.Header, name string) string {
	v, _, _ := strings.Cut(h.Get(name), ",")
	return strings.TrimSpace(v)
}

func (p Proxies) forwarded() bool { return strings.EqualFold(p.Header, "Forwarded") }

// hops returns the hops in the header, the client's side first.
func (p Proxies) hops(h http.Header) []hop {
	all := strings.Join(h.Values(cmp.Or(p.Header, "X-Forwarded-For")), ",")
	var hops []hop
	for element := range fields(all, ',') {
		if !p.forwarded() {
			hops = append(hops, hop{client: strings.TrimSpace(element)})
			continue
		}
		var one hop
		for pair := range fields(element, ';') {
			key, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			value = unquote(value)
			switch strings.ToLower(key) {
			case "for":
				one.client = value
			case "host":
				one.host = value
			case "proto":
				one.scheme = value
			}
		}
		hops = append(hops, one)
	}
	return hops
}

// fields splits a header's value at a separator that is not in a quoted string
// (RFC 9110, section 5.6.4).
func fields(s string, sep byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := 0; i < len(s); i++ {
			switch c := s[i]; {
			case c == '\\' && quoted:
				i++
			case c == '"':
				quoted = !quoted
			case c == sep && !quoted:
				if !yield(s[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(s[start:])
	}
}

// unquote returns the value of a token or a quoted string.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i+1 < len(s)-1 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func (p Proxies) contain(addr netip.Addr) bool {
	return slices.ContainsFunc(p.Networks, func(network netip.Prefix) bool { return network.Contains(addr) })
}

// shared is the address range between carriers and their customers (RFC 6598), which clouds use for
// their own networks as well.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// unknown reports whether an address may belong to a proxy that is not named: that of the loopback
// interface always, and one of a private network if no proxy is named.
func (p Proxies) unknown(addr netip.Addr) bool {
	return addr.IsLoopback() || len(p.Networks) == 0 && (addr.IsPrivate() || addr.IsLinkLocalUnicast() || shared.Contains(addr))
}
