package limit

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the networks of the proxies in front of a node whose word on who
// their client is counts.
type Proxies []netip.Prefix

// Handler gives a handler requests whose RemoteAddr is the client's: the rightmost
// address in X-Forwarded-For that is no proxy's, without a port, if the request
// comes from a proxy. What is left of that anybody may have written. What is no
// address ends the search at the last proxy before it.
func (p Proxies) Handler(next http.Handler) http.Handler {
	if len(p) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if client := p.client(r); client != r.RemoteAddr {
			r = r.WithContext(r.Context()) // a copy, the caller's stays as it is
			r.RemoteAddr = client
		}
		next.ServeHTTP(w, r)
	})
}

func (p Proxies) client(r *http.Request) string {
	if !p.contain(address(r.RemoteAddr)) {
		return r.RemoteAddr
	}
	client := r.RemoteAddr
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		hop = strings.TrimSpace(hop)
		if inner, ok := strings.CutPrefix(hop, "["); ok && strings.HasSuffix(inner, "]") {
			hop = strings.TrimSuffix(inner, "]") // of IPv6, without a port
		}
		addr := address(hop)
		if !addr.IsValid() {
			break
		}
		client = addr.String()
		if !p.contain(addr) {
			break
		}
	}
	return client
}

func (p Proxies) contain(addr netip.Addr) bool {
	return slices.ContainsFunc(p, func(network netip.Prefix) bool { return network.Contains(addr) })
}
