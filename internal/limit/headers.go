package limit

import (
	"net/http"

	"go.uber.org/zap"
)

const (
	// headerLines is the maximum number of header lines of a request: browsers send about 20, and
	// proxies add some. The HTTP server takes about 100 bytes for each, even for short ones.
	headerLines = 100
	// forwardedLines is the number of additional lines for a request of another node, which adds
	// its own.
	forwardedLines = 20
)

// HeaderLines refuse requests with too many header lines. A name with several values
// counts for each.
type HeaderLines struct {
	refused counter
	notice  notice
}

// NewHeaderLines returns the limit of a node.
func NewHeaderLines(log *zap.Logger) *HeaderLines {
	return &HeaderLines{refused: counter{name: Headers}, notice: notice{log: log}}
}

// Public returns a handler for requests of clients.
func (h *HeaderLines) Public(next http.Handler) http.Handler { return h.handler(next, headerLines) }

// Internal returns a handler for requests of other nodes, which forward those of clients.
func (h *HeaderLines) Internal(next http.Handler) http.Handler {
	return h.handler(next, headerLines+forwardedLines)
}

func (h *HeaderLines) handler(next http.Handler, most int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lines := 0
		for _, values := range r.Header {
			lines += len(values)
		}
		if lines <= most {
			next.ServeHTTP(w, r)
			return
		}
		h.refused.n.Add(1)
		h.notice.warn(Headers, "request refused: it has too many headers", zap.String("limit", Headers), zap.Int("lines", lines), zap.String("address", r.RemoteAddr))
		w.Header().Set("Connection", "close")
		http.Error(w, "too many headers", http.StatusRequestHeaderFieldsTooLarge)
	})
}

// Refused returns the number of refused requests.
func (h *HeaderLines) Refused() map[string]uint64 { return counts(&h.refused) }
