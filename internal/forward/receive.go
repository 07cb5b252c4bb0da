package forward

import (
	"encoding/json"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// Handler takes in, below [Prefix], what other nodes pass on, and has engine
// serve it as if the client had reached this node: with its path and address. All
// that is not signed as it must be is answered 403, and says why in JSON.
func (f *Forwarder) Handler(engine http.Handler) http.Handler {
	return f.verified(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.Header.Get(headerSigns) != "" { // all other requests are answered in time
			p := f.newPending(w)
			defer p.begin()
			w = p
		}
		engine.ServeHTTP(w, restore(r))
	})
}

// verified serves what is signed for this node.
func (f *Forwarder) verified(serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why := f.verify(r); why != "" {
			f.refuse(w, r, why)
			return
		}
		w.Header().Set(headerFrom, f.o.Node)
		serve(w, r)
	})
}

// restore returns a verified request as the client has sent it.
func restore(r *http.Request) *http.Request {
	client := r.Header.Get(headerClient)
	r = r.Clone(r.Context())
	strip(r.Header)
	r.RemoteAddr = client
	r.RequestURI = strings.TrimPrefix(r.RequestURI, Prefix)
	r.URL.Path = strings.TrimPrefix(r.URL.Path, Prefix)
	r.URL.RawPath = strings.TrimPrefix(r.URL.RawPath, Prefix)
	return engineio.Forwarded(r)
}

func (f *Forwarder) refuse(w http.ResponseWriter, r *http.Request, why Refusal) {
	f.stats.refused(why)
	f.log.Warn("a forwarded request is refused", zap.String("reason", string(why)), zap.String("remote", r.RemoteAddr))
	h := w.Header()
	h.Set(headerRefused, string(why))
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusForbidden)
	// The only error is that of a peer that has gone.
	_ = json.NewEncoder(w).Encode(struct {
		Code    Refusal `json:"code"`
		Message string  `json:"message"`
	}{why, meanings[why]})
}
