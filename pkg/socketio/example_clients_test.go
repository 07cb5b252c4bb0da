package socketio_test

import (
	"fmt"
	"net/http"

	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// An application that recognizes its own clients by a header, and uses the default for
// others.
func ExampleIsJavaScriptClient() {
	options := socketio.Options{
		Recovers: func(namespace string, h *engineio.Handshake) bool {
			return h.Header.Get("X-App") == "desktop" || socketio.IsJavaScriptClient(h)
		},
	}
	for _, h := range []*engineio.Handshake{
		{URL: "/socket.io/?EIO=4&transport=websocket", Header: http.Header{"User-Agent": {"Mozilla/5.0 (X11)"}}},
		{URL: "/socket.io/?EIO=4&transport=websocket", Header: http.Header{"User-Agent": {"Dart/3.5 (dart:io)"}}},
		{URL: "/socket.io/?transport=websocket&EIO=4", Header: http.Header{"X-App": {"desktop"}}},
	} {
		fmt.Println(options.Recovers("/", h))
	}
	// Output:
	// true
	// false
	// true
}
