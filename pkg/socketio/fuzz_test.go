package socketio

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// FuzzConnectPayload: only fields of a CONNECT payload with the exact names belong to the
// protocol; fields of the application with similar names do not.
func FuzzConnectPayload(f *testing.F) {
	for _, auth := range []string{
		`{}`, `{"pid":"p","offset":"o"}`, `{"PID":"p","offset":"o"}`, `{"pid":"p","Offset":"o"}`, `{"pid":"p","pid":"q"}`,
		`{"pid":7,"offset":"o"}`, `{"pid":null,"offset":null}`, `{"pid":"p","offset":{"a":[1]}}`, `{"token":"x","recovery":true}`,
		`{"recovery":true,"RECOVERY":false}`, `{"\u0070id":"p"}`, `{"\u0050ID":"p"}`, `{"off` + "ſ" + `et":"o","pid":"p"}`, `{"a":"pid","PID":{"pid":"p"}}`,
	} {
		f.Add([]byte(auth))
	}
	f.Fuzz(func(t *testing.T, auth []byte) {
		var d packet.Decoder
		p, err := d.Text(append([]byte{'0'}, auth...))
		if err != nil || p == nil || p.Data == nil {
			return
		}
		auth = p.Data
		var exact map[string]json.RawMessage
		if err := json.Unmarshal(auth, &exact); err != nil {
			t.Fatalf("%q: %v", auth, err)
		}
		var wantPID string
		var wantOffset json.RawMessage
		if raw, ok := exact["pid"]; ok && json.Unmarshal(raw, &wantPID) == nil {
			wantOffset = exact["offset"]
		}
		pid, offset, recovery := connectAuth(auth)
		if string(recovery) != string(exact["recovery"]) {
			t.Errorf("%q has the choice %s", auth, recovery)
		}
		if pid != wantPID || string(offset) != string(wantOffset) {
			t.Errorf("%q has the pid %q and the offset %s, want %q and %s", auth, pid, offset, wantPID, wantOffset)
		}
	})
}

// FuzzMsgpackConnect: a namespace that is found in a message of another parser is one that
// can be answered.
func FuzzMsgpackConnect(f *testing.F) {
	for _, message := range []string{
		"\x83\xa4type\x00\xa4data\x80\xa3nsp\xa1/", "\x82\xa4type\x00\xa3nsp\xa5/chat", "\x82\xa4type\x00\xa3nsp\xd9\x05/chat",
		"\x82\xa4type\x00\xa3nsp\xa0", "\x82\xa4type\x00\xa3nsp\xbf/", "\x82\xa4type\x02\xa3nsp\xa1/", "\x80", "",
		"\x82\xa4type\x00\xa3nsp\xa2/\xff",
		"\x82\xa4type\x00\xa3nsp\xd9\xff" + "/" + strings.Repeat("n", 254),
	} {
		f.Add([]byte(message))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		namespace, ok := msgpackConnect(message)
		if !ok {
			if namespace != "" {
				t.Errorf(`%q: not one, and yet %q, want ""`, message, namespace)
			}
			return
		}
		if !strings.HasPrefix(namespace, "/") || len(namespace) > maxNamespaceName || !strings.HasSuffix(string(message), namespace) {
			t.Errorf("%q: the namespace %q", message, namespace)
		}
		if !utf8.ValidString(namespace) {
			t.Errorf("%q: the namespace %q is not UTF-8", message, namespace)
		}
		if refusal := msgpackRefusal(namespace); !strings.HasSuffix(string(refusal), namespace) {
			t.Errorf("%q is refused by %q", message, refusal)
		}
	})
}

// FuzzNodeMessages: messages of other nodes come through Redis and may be invalid. Only
// sockets that their node has named answer a query, each once, and every wait ends.
func FuzzNodeMessages(f *testing.F) {
	for _, data := range []string{
		`{"first":true,"who":["a","b"],"acks":[{"who":"a","args":"WzFd"}]}`, `{"acks":[{"who":"a","gone":true},{"who":"c"}]}`,
		`{"first":true,"who":["a","a"],"acks":[{"who":"a","args":"e30="},{"who":"a"}]}`, `{"first":true,"described":[{"id":"a"}]}`,
		`{"id":"q","wait":-1,"to":[{"Kind":9}]}`, `{"wait":9223372036854775807}`, `{"wait":1e99}`, `null`, `[`, `["a"]`,
	} {
		f.Add([]byte(data), []byte(data))
	}
	f.Fuzz(func(t *testing.T, first, then []byte) {
		var all queries
		asked := newQuery()
		all.add(asked)
		named := make(map[string]bool)
		for _, data := range [][]byte{first, then, then} {
			all.take(adapter.Message{From: "node", ID: asked.id, Data: data})
			all.take(adapter.Message{From: "node", ID: "another query", Data: data})
			for who := range asked.nodes["node"] {
				named[who] = true
			}
			var a response
			if json.Unmarshal(data, &a) == nil {
				for _, who := range a.Who {
					named[who] = true
				}
			}
		}
		acks := len(asked.missing)
		for _, a := range asked.answers {
			if a.SocketID != "" {
				acks++
			}
		}
		if acks > len(named) {
			t.Errorf("%q, %q: %d acks of %d sockets", first, then, acks, len(named))
		}
		if _, wait := parseQueryHeader(string(first)); wait <= 0 || wait > maxWait {
			t.Errorf("%q is waited for %v, want more than 0, at most %v", first, wait, maxWait)
		}
		for _, kind := range []uint8{kindJoin, kindLeave} {
			newCommand(&adapter.Event{Kind: kind, Data: first, Attachments: [][]byte{first, then}})
		}
	})
}
