package api

import (
	"encoding/json"
	"net/http"
	"testing"
)

// FuzzBodies: the answer to a body is JSON, empty, or a problem document. An accepted body
// has each name at most once, spelled as in the contract.
func FuzzBodies(f *testing.F) {
	paths := []string{"emit", "batch", "join", "leave", "disconnect", "ask"}
	for i, bodies := range [][]string{
		{
			emitted, `{"rooms":["a"],"event":"b","args":[1,{"_placeholder":true,"num":0}],"attachments":["AAE="]}`,
			`{"everyone":true,"event":"connect"}`, `{"everyone":true,"EVENT":"x","event":"y"}`, `{"everyone":true,"event":"x","event":"y"}`,
			`{"everyone":true,"event":"x","except":[],"exceptUsers":["u"],"exceptSockets":["s"],"namespace":"/chat","volatile":true}`,
			`{"everyone":true,"event":"x","args":[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}],"attachments":["AA=="]}`,
			`{"sockets":[""],"event":"x"}`, `{} {}`, `[]`, `null`, ``, "{\"event\":\"\xff\"}",
		},
		{`{"emits":[` + emitted + `,{},null,7]}`, `{"emits":[]}`, `{"emits":null}`},
		{`{"everyone":true,"join":["a"]}`, `{"everyone":true,"join":["user:a"]}`, `{"users":["u"],"join":[]}`},
		{`{"everyone":true,"leave":["a"]}`, `{"rooms":["a","a"],"leave":["a","a"]}`},
		{`{"everyone":true}`, `{"sockets":["s"],"close":true}`, `{"everyone":true,"sockets":["s"]}`},
		{`{"rooms":["nobody"],"event":"x","timeout":1}`, `{"rooms":["nobody"],"event":"x","timeout":"1"}`},
	} {
		for _, body := range bodies {
			f.Add(uint8(i), body)
		}
	}
	a, _ := start(f, Options{})
	f.Fuzz(func(t *testing.T, path uint8, body string) {
		w := call(a, http.MethodPost, paths[int(path)%len(paths)], body)
		switch {
		case w.Code == http.StatusGatewayTimeout && paths[int(path)%len(paths)] == "ask": // as requested by the body
		case w.Code >= http.StatusInternalServerError:
			t.Errorf("%q: got %d %s, want no server error", body, w.Code, w.Body)
		case w.Code >= http.StatusBadRequest:
			problemOf(t, w)
		case w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) || w.Body.Len() == 0 && w.Code != http.StatusNoContent:
			t.Errorf("%q: got %d %q, want JSON, or 204 and no body", body, w.Code, w.Body)
		default:
			names := make(map[string]json.RawMessage)
			if err := json.Unmarshal([]byte(body), &names); err != nil || len(names) == 0 {
				t.Errorf("%q is taken: %v", body, err)
			}
		}
	})
}
