package engineio

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/rs/cors"
)

// origins says which web origins may use a server. It is asked for polling and
// WebSocket alike.
type origins struct {
	same bool // the one that the request was sent to
	any  bool
	list map[string]bool
}

func newOrigins(list []string) (*origins, error) {
	o := &origins{same: list == nil, list: make(map[string]bool)}
	for _, origin := range list {
		if origin == "*" {
			o.any = true
			continue
		}
		u, err := url.Parse(origin)
		if origin != "null" && (err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin) {
			return nil, fmt.Errorf(`engineio: origin %q is not of the form scheme://host[:port]`, origin)
		}
		o.list[strings.ToLower(origin)] = true
	}
	return o, nil
}

// allow reports whether a request may be served. One without an Origin header
// does not come from a web page.
func (o *origins) allow(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	switch {
	case origin == "" || o.any:
		return true
	case o.same:
		u, err := url.Parse(origin)
		return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) &&
			(r.TLS == nil || u.Scheme == "https") // without TLS here there may be some in front
	default:
		return o.list[strings.ToLower(origin)]
	}
}

// wrap adds the headers that let browsers of other origins read responses.
// Origins that are named may send credentials; "*" means everybody, as nobody.
func (o *origins) wrap(next http.Handler) http.Handler {
	if o.same {
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
		options.AllowOriginVaryRequestFunc = func(r *http.Request, _ string) (bool, []string) {
			return o.allow(r), nil
		}
	}
	return cors.New(options).Handler(next)
}

// validOrigin reports whether an Origin header holds only characters that a
// header may hold.
func validOrigin(origin string) bool {
	for i := range len(origin) {
		if c := origin[i]; c != '\t' && (c < 0x20 || c == 0x7F) {
			return false
		}
	}
	return true
}
