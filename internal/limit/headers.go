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

// HeaderLines returns a handler that refuses requests of clients with too many header lines. A name
// with several values counts for each.
func HeaderLines(t *Tally, next http.Handler) http.Handler { return boundLines(t, next, headerLines) }

// ForwardedHeaderLines is HeaderLines for requests of other nodes, which forward those of clients.
func ForwardedHeaderLines(t *Tally, next http.Handler) http.Handler {
	return boundLines(t, next, headerLines+forwardedLines)
}

func boundLines(t *Tally, next http.Handler, maximum int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lines := 0
		for _, values := range r.Header {
			lines += len(values)
		}
		if lines <= maximum {
			next.ServeHTTP(w, r)
			return
		}
		t.refuse(Headers, "request refused: it has too many headers", zap.Int("lines", lines), zap.String("address", r.RemoteAddr))
		w.Header().Set("Connection", "close")
		http.Error(w, "too many headers", http.StatusRequestHeaderFieldsTooLarge)
	})
}
