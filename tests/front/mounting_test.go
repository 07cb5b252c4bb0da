package front

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/mux"
	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// The examples of docs/mounting.md, with middlewares that wrap the ResponseWriter:
// a stock client begins with polling, moves to a WebSocket and is answered.
func TestRouters(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	for name, mount := range map[string]func(srv http.Handler) http.Handler{
		"net/http": func(srv http.Handler) http.Handler {
			m := http.NewServeMux()
			m.Handle("/socket.io/", srv)
			return m
		},
		"chi": func(srv http.Handler) http.Handler {
			r := chi.NewRouter()
			r.Use(middleware.Logger, middleware.Compress(5), middleware.Recoverer)
			middleware.DefaultLogger = middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: nothing{}, NoColor: true})
			r.Handle("/socket.io/*", srv)
			return r
		},
		"gin": func(srv http.Handler) http.Handler {
			r := gin.New()
			r.Use(gin.Recovery())
			r.Any("/socket.io/*any", gin.WrapH(srv))
			return r
		},
		"echo": func(srv http.Handler) http.Handler {
			e := echo.New()
			e.Use(echomiddleware.Recover(), echomiddleware.Gzip())
			e.Any("/socket.io/*", echo.WrapHandler(srv))
			return e
		},
		"gorilla/mux": func(srv http.Handler) http.Handler {
			r := mux.NewRouter()
			r.PathPrefix("/socket.io/").Handler(srv)
			return r
		},
		"a writer with Unwrap": func(srv http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { srv.ServeHTTP(unwrapped{w}, r) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			web := httptest.NewServer(mount(newServer(t, engineio.Options{}, zap.NewNop())))
			defer web.Close()
			echoes(t, runClient(t, web.URL, "upgrade", "/socket.io/", ""), "websocket")
		})
	}
}

// The client has the whole path, the server's option the stripped one.
func TestStrippedPrefix(t *testing.T) {
	m := http.NewServeMux()
	m.Handle("/api/v2/", http.StripPrefix("/api/v2", newServer(t, engineio.Options{}, zap.NewNop())))
	web := httptest.NewServer(m)
	defer web.Close()
	echoes(t, runClient(t, web.URL, "upgrade", "/api/v2/socket.io/", ""), "websocket")
}

// A client with addTrailingSlash: false.
func TestWithoutTrailingSlash(t *testing.T) {
	srv := newServer(t, engineio.Options{}, zap.NewNop())
	m := http.NewServeMux()
	m.Handle("/socket.io/", srv)
	m.Handle("/socket.io", srv)
	web := httptest.NewServer(m)
	defer web.Close()
	echoes(t, runClient(t, web.URL, "upgrade", "/socket.io", "slashless"), "websocket")
}

// http.TimeoutHandler allows no WebSocket: the client stays on polling, and the log
// reports the reason once.
func TestTimeoutHandler(t *testing.T) {
	seen, logs := observer.New(zap.WarnLevel)
	srv := newServer(t, engineio.Options{}, zap.New(seen))
	web := httptest.NewServer(http.TimeoutHandler(srv, time.Hour, "too late"))
	defer web.Close()
	echoes(t, runClient(t, web.URL, "upgrade", "/socket.io/", "stays"), "polling")
	echoes(t, runClient(t, web.URL, "upgrade", "/socket.io/", "stays"), "polling")
	lines := logs.All()
	if len(lines) != 1 || !strings.Contains(lines[0].Message, "cannot be taken over for a WebSocket") {
		t.Errorf("logged %+v", lines)
	}
}

// unwrapped is a ResponseWriter without optional methods of its own.
type unwrapped struct{ w http.ResponseWriter }

func (u unwrapped) Header() http.Header         { return u.w.Header() }
func (u unwrapped) Write(b []byte) (int, error) { return u.w.Write(b) }
func (u unwrapped) WriteHeader(status int)      { u.w.WriteHeader(status) }
func (u unwrapped) Unwrap() http.ResponseWriter { return u.w }

// nothing is a logger that discards its entries.
type nothing struct{}

func (nothing) Print(...any) {}
