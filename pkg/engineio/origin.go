package engineio

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/cors"
	"go.uber.org/zap"
)

// Origins are the web origins, beside its own, that may use a server. [Options].Origins describes
// their form. An Origins is immutable.
type Origins struct {
	any      bool
	patterns []pattern
	// function is [Options].AllowOrigin, wrapped so that it does not panic; or nil.
	function func(r *http.Request, origin string) bool
}

// A pattern is one origin, or all subdomains of one.
type pattern struct {
	scheme, host, port string // in the form of origin
	subdomains         bool   // host is the suffix, with its leading dot
}

// ParseOrigins checks and parses patterns of origins. The error names the first malformed pattern
// and says what is allowed.
func ParseOrigins(patterns []string) (*Origins, error) {
	o := new(Origins)
	for _, text := range patterns {
		if text == "*" {
			o.any = true
			continue
		}
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		o.patterns = append(o.patterns, p)
	}
	if o.any && len(o.patterns) > 0 {
		return nil, fmt.Errorf(`engineio: origins %q: "*" allows all origins: write only "*", or remove it`, patterns)
	}
	return o, nil
}

// parsePattern parses one pattern other than "*".
func parsePattern(text string) (pattern, error) {
	malformed := func(format string, args ...any) (pattern, error) {
		return pattern{}, fmt.Errorf("engineio: origin %q: %s", text, fmt.Sprintf(format, args...))
	}
	if text == "null" {
		return pattern{scheme: "null"}, nil
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		if !strings.ContainsAny(text, ":/*") && text != "" {
			return malformed(`missing scheme: write "https://%s"`, text)
		}
		return malformed(`missing scheme: write scheme://host or scheme://host:port, "null" or "*"`)
	}
	if strings.Contains(scheme, "*") {
		return malformed("wildcard in the scheme: write one origin for each scheme")
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		return malformed(`an origin has no path: write "%s://%s"`, scheme, rest[:i])
	}
	if strings.Contains(rest, "@") {
		return malformed("an origin has no user name: write scheme://host or scheme://host:port")
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7F }) {
		return malformed("host in other characters than ASCII: write it as browsers send it, as in https://xn--bcher-kva.example")
	}
	subdomains := strings.HasPrefix(rest, "*.")
	if subdomains {
		rest = rest[1:]
	}
	if strings.Contains(rest, "*") {
		return malformed("a wildcard stands only for all subdomains: write scheme://*.domain")
	}
	p, ok := parseOrigin(scheme + "://" + strings.TrimPrefix(rest, "."))
	switch {
	case !ok:
		return malformed("malformed: write scheme://host or scheme://host:port")
	case subdomains && p.host != "localhost" && (!strings.Contains(p.host, ".") || isIP(p.host)):
		return malformed("a wildcard needs a domain of at least two labels: write scheme://*.domain.example")
	case subdomains:
		p.host, p.subdomains = "."+p.host, true
	}
	return p, nil
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

// parseOrigin parses an origin into its canonical form: lower case, without a default port, and
// with the scheme of HTTP for WebSockets. Only origins of other schemes may lack a host, as file://
// does.
func parseOrigin(text string) (o pattern, ok bool) {
	if text == "null" {
		return pattern{scheme: "null"}, true
	}
	u, err := url.Parse(text)
	if err != nil || !strings.EqualFold(u.Scheme+"://"+u.Host, text) {
		return pattern{}, false
	}
	o = pattern{scheme: webScheme(u.Scheme), host: strings.ToLower(u.Host)}
	web := o.scheme == "http" || o.scheme == "https"
	if name := u.Hostname(); web && (name == "" || strings.HasPrefix(name, ".") || strings.Contains(name, "..")) {
		return pattern{}, false
	}
	if port := u.Port(); port != "" || strings.HasSuffix(o.host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return pattern{}, false
		}
		o.host = strings.TrimSuffix(o.host, ":"+port)
		if port != defaultPorts[o.scheme] {
			o.port = port
		}
	}
	return o, true
}

// webScheme returns a page's scheme for that of a connection.
func webScheme(scheme string) string {
	scheme = strings.ToLower(scheme)
	return cmp.Or(map[string]string{"ws": "http", "wss": "https"}[scheme], scheme)
}

var defaultPorts = map[string]string{"http": "80", "https": "443"}

func (p *pattern) matches(o pattern) bool {
	if p.scheme != o.scheme || p.port != o.port {
		return false
	}
	if p.subdomains {
		return strings.HasSuffix(o.host, p.host) && len(o.host) > len(p.host)
	}
	return p.host == o.host
}

// own reports whether an origin is the one that a request was sent to. If neither TLS nor
// [http.Request].URL determines the scheme, a TLS proxy may precede this server, so both schemes
// are its own.
func own(o pattern, r *http.Request) bool {
	switch scheme := ownScheme(r); {
	case o.scheme != "http" && o.scheme != "https":
		return false
	case scheme != "" && scheme != o.scheme:
		return false
	}
	here, ok := parseOrigin(o.scheme + "://" + r.Host)
	return ok && here == o
}

// ownScheme returns the scheme that the client used, or "" if unknown.
func ownScheme(r *http.Request) string {
	switch {
	case r.URL.Scheme != "" && r.URL.Host == "": // set by a middleware, not by the client
		return webScheme(r.URL.Scheme)
	case r.TLS != nil:
		return "https"
	}
	return ""
}

// listed reports whether an origin is allowed beside the server's own.
func (o *Origins) listed(r *http.Request, origin string) bool {
	if o.any {
		return true
	}
	if parsed, ok := parseOrigin(origin); ok && slices.ContainsFunc(o.patterns, func(p pattern) bool { return p.matches(parsed) }) {
		return true
	}
	return o.function != nil && o.function(r, origin)
}

// allow reports whether a request may be served. A request without an Origin header does not come
// from a web page.
func (o *Origins) allow(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || o.any {
		return true
	}
	parsed, ok := parseOrigin(origin)
	return ok && own(parsed, r) || o.listed(r, origin)
}

// CORS is like [Server.CORS], for handlers that serve before the server exists.
func (o *Origins) CORS(next http.Handler) http.Handler {
	if !o.any && len(o.patterns) == 0 && o.function == nil {
		return next
	}
	options := cors.Options{
		AllowedMethods: []string{
			http.MethodGet, http.MethodHead, http.MethodPut,
			http.MethodPatch, http.MethodPost, http.MethodDelete,
		},
		AllowedHeaders: []string{"*"},
	}
	if o.any {
		options.AllowedOrigins = []string{"*"}
	} else {
		options.AllowCredentials = true
		options.AllowOriginVaryRequestFunc = func(r *http.Request, origin string) (bool, []string) {
			return o.listed(r, origin), nil
		}
	}
	return cors.New(options).Handler(next)
}

// newOrigins returns the origins that the options allow.
func newOrigins(o *Options) (*Origins, error) {
	origins, err := ParseOrigins(o.Origins)
	if err != nil || o.AllowOrigin == nil {
		return origins, err
	}
	if origins.any {
		return nil, fmt.Errorf(`engineio: Origins "*" allows all origins: remove it, or AllowOrigin`)
	}
	origins.function = func(r *http.Request, origin string) (allowed bool) {
		o.guard("AllowOrigin", func() { allowed = o.AllowOrigin(r, origin) })
		return allowed
	}
	return origins, nil
}

// A refusedOrigins logs each origin that is refused, once in an hour.
type refusedOrigins struct {
	mu     sync.Mutex
	seen   map[string]bool
	forget time.Time // when seen is emptied
}

const (
	// maxRefusedOrigins bounds the origins that are remembered, and so the log lines, per hour:
	// made-up ones must not hide an operator's own.
	maxRefusedOrigins = 100
	rememberOrigins   = time.Hour
	// maxLoggedOrigin bounds the bytes logged of each origin.
	maxLoggedOrigin = 256
)

func (l *refusedOrigins) log(log *zap.Logger, r *http.Request, allowed []string) {
	origin := r.Header.Get("Origin")
	origin = origin[:min(len(origin), maxLoggedOrigin)]
	l.mu.Lock()
	if now := time.Now(); !now.Before(l.forget) {
		l.seen, l.forget = make(map[string]bool), now.Add(rememberOrigins)
	}
	n, seen := len(l.seen), l.seen[origin]
	if !seen && n <= maxRefusedOrigins {
		l.seen[origin] = true
	}
	l.mu.Unlock()
	switch {
	case seen || n > maxRefusedOrigins:
	case n == maxRefusedOrigins:
		log.Warn("further refused origins are not logged", zap.Int("logged", n))
	default:
		log.Warn("origin refused", zap.String("origin", origin),
			zap.String("own_scheme", cmp.Or(ownScheme(r), "http or https")), zap.String("own_host", r.Host),
			zap.Strings("allowed", allowed), zap.String("remote", r.RemoteAddr))
	}
}

// validOrigin reports whether an Origin header holds only valid header characters.
func validOrigin(origin string) bool {
	return !strings.ContainsFunc(origin, func(c rune) bool { return c != '\t' && (c < ' ' || c == 0x7F) })
}
