package forward

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// Handler serves, below [Prefix], the requests that other nodes forward. It passes each to engine
// as if the client had reached this node: with its path and address. Requests without a valid
// signature are answered 403, with the reason in JSON. Requests beyond the bound are refused so
// that the other node knows that the session may exist.
func (f *Forwarder) Handler(engine http.Handler) http.Handler {
	return f.verified(func(w http.ResponseWriter, r *http.Request) {
		if !f.o.Incoming.Enter(r) {
			_, _ = io.Copy(io.Discard, r.Body) // otherwise the server may close the connection before the answer is read
			w.Header().Set(headerRefused, busy)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer func() {
			if c := limit.Hijacked(r); c == nil {
				f.o.Incoming.Leave()
			} else {
				c.OnClose(f.o.Incoming.Leave)
			}
		}()
		if r.Method == http.MethodPost && r.Header.Get(headerSigns) != "" { // all other requests are answered in time
			p := f.newPending(w)
			defer p.begin()
			w = p
		}
		engine.ServeHTTP(w, restore(r))
	})
}

// verified serves requests that are signed for this node.
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

// restore returns a verified request as the client sent it.
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
	f.countRefusal(why)
	f.log.Warn("forwarded request refused", zap.String("reason", string(why)), zap.String("remote", r.RemoteAddr))
	h := w.Header()
	h.Set(headerRefused, string(why))
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusForbidden)
	// The only possible error is a disconnected peer.
	_ = json.NewEncoder(w).Encode(struct {
		Code    Refusal `json:"code"`
		Message string  `json:"message"`
	}{why, meanings[why]})
}
