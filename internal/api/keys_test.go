package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	a, _ := start(t, Options{})
	for _, tt := range []struct {
		headers []string
		status  int
	}{
		{[]string{"X-API-Key: " + key}, 200},
		{[]string{"X-API-Key: another key"}, 200},
		{[]string{"X-API-Key: "}, 401},
		{[]string{"X-API-Key: ", "X-API-Key: wrong"}, 401},
		{[]string{"X-API-Key: ", "X-API-Key: another key,a key that nobody guesses"}, 401},
		{[]string{"X-API-Key: ", "Authorization: Bearer " + key}, 200},
		{[]string{"X-API-Key: ", "Authorization: bearer " + key}, 200},
		{[]string{"Authorization: Bearer wrong"}, 401},
		{[]string{"X-API-Key: ", "Authorization: Basic " + key}, 401},
		{[]string{"X-API-Key: ", "Authorization: " + key}, 401},
		{[]string{"X-API-Key: ", "Authorization: Bearer "}, 401},
	} {
		headers := tt.headers
		if strings.HasPrefix(headers[0], "X-API-Key: a") && len(headers) == 1 {
			headers = append([]string{"X-API-Key: "}, headers...)
		}
		w := call(a, "POST", "emit", emitted, headers...)
		if w.Code != tt.status {
			t.Errorf("%q: %d %s, want %d", headers, w.Code, w.Body, tt.status)
		}
		if w.Code == 401 && (problemOf(t, w).Code != unauthorized.name || w.Header().Get("WWW-Authenticate") == "") {
			t.Errorf("%q: got headers %s, want code %s and WWW-Authenticate", headers, w.Header(), unauthorized.name)
		}
	}
	for _, path := range []string{"nothing", "emit/", "sockets"} { // callers cannot find out which paths exist
		if w := call(a, "GET", path, "", "X-API-Key: "); w.Code != 401 {
			t.Errorf("%s: %d, want 401", path, w.Code)
		}
	}
	closed, _ := start(t, Options{Keys: []string{}})
	for _, path := range []string{"emit", "nothing"} {
		if w := call(closed, "POST", path, emitted); problemOf(t, w).Code != noAPIKeys.name || !strings.Contains(w.Body.String(), "REJOIN_API_KEYS") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if w := call(closed, "GET", "openapi.yaml", "", "X-API-Key: "); w.Code != 200 || w.Body.String() != string(openAPI) {
		t.Errorf("the contract: %d", w.Code)
	}
}

func TestProtect(t *testing.T) {
	a, _ := start(t, Options{})
	h := a.Protect(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") }))
	if w := call(h, "GET", "", ""); w.Body.String() != "secret" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := call(h, "GET", "", "", "X-API-Key: "); problemOf(t, w).Code != unauthorized.name {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
