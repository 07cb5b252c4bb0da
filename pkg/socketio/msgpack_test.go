package socketio

import (
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A client whose parser is MessagePack gets a CONNECT_ERROR that it understands, in each
// namespace; other binary messages still end the connection.
func TestMessagePackConnect(t *testing.T) {
	seen, logs := observer.New(zap.WarnLevel)
	n := start(t, Options{Logger: zap.New(seen)})
	w := n.dial(t)
	long := "/" + strings.Repeat("n", 100)
	for _, test := range []struct{ sent, namespace string }{
		{"\x83\xa4type\x00\xa4data\xc0\xa3nsp\xa1/", "/"},
		{"\x83\xa4type\x00\xa4data\x81\xa3nsp\xa2/x\xa3nsp\xa5/chat", "/chat"},
		{"\x82\xa4type\x00\xa3nsp\xd9\x65" + long, long},
	} {
		if err := w.ws.WriteMessage(websocket.BinaryMessage, []byte(test.sent)); err != nil {
			t.Fatal(err)
		}
		got := w.next()
		if !strings.HasPrefix(got, "\x83\xa4type\x04\xa4data\x81\xa7message\xda") || !strings.HasSuffix(got, test.namespace) || !strings.Contains(got, msgpackMessage) {
			t.Errorf("%q: answered %q", test.sent, got)
		}
	}
	if logs.Len() != 1 {
		t.Errorf("logged %+v", logs.All())
	}
	for _, sent := range []string{
		"", "\x83", "\x83\xa4type\x02\xa4data\xc0\xa3nsp\xa1/", // an event
		"\x83\xa4type\x00\xa4data\xc0\xa3nsp\xa2/", "\x83\xa4type\x00\xa4data\xc0\xa3nsp", "\x83\xa4type\x00\xa3nsp\xa1x",
		"\x83\xa4type\x00\xa3nsp\xd9\xffx", "\x83\xa4type\x00\xa3nsp\xd9",
	} {
		if ns, ok := msgpackConnect([]byte(sent)); ok {
			t.Errorf("%q is taken for a CONNECT to %q", sent, ns)
		}
	}
	if err := w.ws.WriteMessage(websocket.BinaryMessage, []byte("\x83\xa4type\x02\xa4data\xc0\xa3nsp\xa1/")); err != nil {
		t.Fatal(err)
	}
	<-w.closed
}

// DISCONNECT and ACK for a namespace that is not joined may have crossed this
// side's DISCONNECT, so they are ignored. The reference closes the connection.
func TestLateDisconnectAndAck(t *testing.T) {
	w := start(t, Options{}).dial(t)
	for _, packet := range []string{"41", "41/chat", "430[]", "43/chat,7[1]", "461-0[{\"_placeholder\":true,\"num\":0}]"} {
		w.write(packet)
	}
	if err := w.ws.WriteMessage(websocket.BinaryMessage, []byte{1}); err != nil {
		t.Fatal(err)
	}
	w.write("40")
	if got := w.next(); !strings.HasPrefix(got, `40{"sid"`) {
		t.Errorf("answered %q", got)
	}
}
