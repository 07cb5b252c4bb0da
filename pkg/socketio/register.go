package socketio

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"sync"

	"github.com/rejoin-io/rejoin/pkg/packet"
)

// instead names the method to use in place of a handler of a reserved event.
var instead = map[string]string{
	"connect": "OnConnect", "connection": "OnConnect", "disconnect": "OnDisconnect of the Socket",
	"disconnecting": "OnDisconnecting of the Socket", "connect_error": "Use, whose error refuses a client",
}

// checkHandler panics if a handler of an event would never be called, or is nil. Like
// http.Handle it panics because the mistake is in the program.
func checkHandler(method, event string, h Handler) {
	call := fmt.Sprintf("%s(%q)", method, event)
	// Clients may send "connection", but such a handler is meant for OnConnect.
	if event == "connection" || packet.Reserved(event) {
		panic(fmt.Sprintf("socketio: %s: use %s: the event is reserved", call, cmp.Or(instead[event], "another name")))
	}
	checkFunc(call, h)
}

// checkFunc panics if a function to be registered is nil.
func checkFunc(method string, f any) {
	if reflect.ValueOf(f).IsNil() {
		panic("socketio: " + method + ": nil function")
	}
}

// register adds a function of the application to a list that a lock guards. A list is replaced,
// never changed, so a copy is a snapshot.
func register[F any](method string, mu sync.Locker, list *[]F, f F) {
	checkFunc(method, f)
	mu.Lock()
	defer mu.Unlock()
	*list = append((*list)[:len(*list):len(*list)], f)
}

// registerHandler is register for a handler of an event, and replaces the table of all of them.
func registerHandler(method string, mu sync.Locker, table *map[string][]Handler, event string, h Handler) {
	checkHandler(method, event, h)
	mu.Lock()
	defer mu.Unlock()
	grown := make(map[string][]Handler, len(*table)+1)
	maps.Copy(grown, *table)
	hs := grown[event]
	grown[event] = append(hs[:len(hs):len(hs)], h)
	*table = grown
}
