package engineio_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// A server that echoes messages.
func ExampleNewServer() {
	srv, err := engineio.NewServer(engineio.Options{}, func(c *engineio.Conn) {
		for {
			m, err := c.Recv()
			if err != nil {
				return // the connection has ended, and err has the reason
			}
			if err := c.Send(engineio.Text(m.Data)); err != nil {
				return
			}
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	http := httptest.NewServer(srv)
	defer http.Close()

	ws, _, err := websocket.DefaultDialer.Dial("ws"+http.URL[len("http"):]+"/engine.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, _, err := ws.ReadMessage(); err != nil { // the handshake
		log.Fatal(err)
	}
	if err := ws.WriteMessage(websocket.TextMessage, []byte("4hello")); err != nil {
		log.Fatal(err)
	}
	_, packet, err := ws.ReadMessage()
	fmt.Println(string(packet), err)
	_ = ws.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: 4hello <nil>
}

// A server beside other routes of a mux.
func ExampleServer_ServeHTTP() {
	srv, err := engineio.NewServer(engineio.Options{Path: "/live/"}, func(c *engineio.Conn) {
		_, _ = c.Recv()
	})
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close(context.Background())

	mux := http.NewServeMux()
	mux.Handle("/live/", srv)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a page") })
	http := httptest.NewServer(mux)
	defer http.Close()

	get := func(path string) string {
		res, err := http.Client().Get(http.URL + path)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	fmt.Println(get("/index.html"))
	fmt.Println(get("/live/?EIO=4&transport=polling")[:len(`0{"sid":`)])
	// Output:
	// a page
	// 0{"sid":
}

// One packet is encoded once for many connections.
func ExampleConn_Send() {
	var srv *engineio.Server // from NewServer
	broadcast := func(data []byte) {
		p := engineio.Text(data)
		for c := range srv.Conns() {
			_ = c.Send(p) // Recv on c returns the error
		}
	}
	_ = broadcast
}

// Origins that can never match are refused, and the error suggests a correction.
func ExampleParseOrigins() {
	for _, origin := range []string{"https://*.app.example", "app.example", "https://app.example/"} {
		_, err := engineio.ParseOrigins([]string{origin})
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// engineio: origin "app.example": missing scheme: write "https://app.example"
	// engineio: origin "https://app.example/": an origin has no path: write "https://app.example"
}

// A server that refuses new sessions while it has too many.
func ExampleBusyError() {
	var open atomic.Int32
	srv, err := engineio.NewServer(engineio.Options{
		Admit: func(*http.Request) (ended func(), err error) {
			if open.Add(1) > 1 {
				open.Add(-1)
				return nil, &engineio.BusyError{RetryAfter: 5 * time.Second, Message: "too many sessions"}
			}
			return func() { open.Add(-1) }, nil
		},
	}, func(c *engineio.Conn) { _, _ = c.Recv() })
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close(context.Background())

	for range 2 {
		answer := httptest.NewRecorder()
		srv.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/engine.io/?EIO=4&transport=polling", nil))
		fmt.Printf("%d %q\n", answer.Code, answer.Header().Get("Retry-After"))
	}
	// Output:
	// 200 ""
	// 503 "5"
}

// The end of a connection has a reason, and a cause if the reason is not sufficient.
func ExampleCloseError() {
	err := error(&engineio.CloseError{Reason: engineio.TransportError, Err: engineio.ErrSlowClient}) // of Recv
	if end := (*engineio.CloseError)(nil); errors.As(err, &end) {
		fmt.Println(end.Reason == engineio.TransportError, errors.Is(err, engineio.ErrSlowClient))
	}
	fmt.Println(err)
	// Output:
	// true true
	// engineio: transport error: send queue is full
}

// A reader that waits for its workers. The client's silence does not count meanwhile, because its
// answers to pings are not read.
func ExampleConn_Pause() {
	work := make(chan []byte, 100)
	serve := func(c *engineio.Conn) { // for NewServer
		for {
			m, err := c.Recv()
			if err != nil {
				return
			}
			c.Pause()
			select {
			case work <- m.Data:
			case <-c.Context().Done():
			}
			c.Resume()
		}
	}
	_ = serve
}

// A large answer waits until the client has taken earlier ones, instead of filling the send queue.
func ExampleConn_SendPaced() {
	answer := func(ctx context.Context, c *engineio.Conn, data []byte) error {
		p := engineio.Text(data)
		if err := c.WaitPaced(ctx, 32<<10, p); err != nil {
			return err
		}
		return c.SendPaced(p)
	}
	_ = answer
}
