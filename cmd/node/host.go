package main

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// onlyOwnNames protects a node without authentication at a loopback address against DNS
// rebinding: the owner of a web page makes the page's name resolve to 127.0.0.1, so that
// the page's origin is that of the node. Such a node answers only to the names of loopback
// and to the hosts of REJOIN_ORIGINS. It answers to all names if REJOIN_ALLOW_ANONYMOUS or
// REJOIN_TRUSTED_PROXIES says that it serves clients on other machines.
func (n *node) onlyOwnNames(c config, next http.Handler) http.Handler {
	if c.AllowAnonymous || c.authenticates() || !c.Addr.loopback() || len(c.TrustedProxies) > 0 || slices.Contains(c.Origins, "*") {
		return next
	}
	listed := hosts(c.Origins)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := hostname(r.Host); isLoopback(name) || slices.ContainsFunc(listed, func(host string) bool { return isOf(name, host) }) {
			next.ServeHTTP(w, r)
			return
		}
		n.foreignName.Do(func() {
			n.log.Warn("request refused: this node has no authentication, and its host is neither a loopback name nor one of REJOIN_ORIGINS; further ones are not logged",
				zap.String("host", r.Host[:min(len(r.Host), 100)]), zap.String("allowed_by", "REJOIN_ORIGINS, REJOIN_ALLOW_ANONYMOUS=true, REJOIN_TRUSTED_PROXIES or authentication"))
		})
		http.Error(w, "This node answers to loopback names only.", http.StatusMisdirectedRequest)
	})
}

// isOf reports whether a name is that of a host, or, if the host begins with a dot, of a subdomain.
func isOf(name, host string) bool {
	return name == host || strings.HasPrefix(host, ".") && strings.HasSuffix(name, host)
}

// hosts returns the hosts of some origins, which are well-formed.
func hosts(origins []string) (list []string) {
	for _, origin := range origins {
		if _, rest, ok := strings.Cut(origin, "://"); ok && rest != "" {
			list = append(list, strings.TrimPrefix(hostname(rest), "*"))
		}
	}
	return list
}

// hostname returns a Host header without its port, in lower case.
func hostname(hostport string) string {
	name := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		name = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
}

// isLoopback reports whether browsers resolve a name to this machine without DNS.
func isLoopback(name string) bool {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}
