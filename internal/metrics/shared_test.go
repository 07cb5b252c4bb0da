package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Requests that arrive while an answer is made share the next one, and none gets one that began
// before it arrived.
func TestConcurrentScrapesShareAnAnswer(t *testing.T) {
	const scrapes = 20
	begun, proceed := make(chan struct{}, scrapes), make(chan struct{})
	made := 0
	s := share(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		made++ // one at a time
		begun <- struct{}{}
		<-proceed
		w.Header().Set("X-Kind", r.Header.Get("Accept"))
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, made)
	}))
	var all sync.WaitGroup
	scrape := func(accept string, least int) {
		all.Go(func() {
			r, w := httptest.NewRequest(http.MethodGet, "/metrics", nil), httptest.NewRecorder()
			r.Header.Set("Accept", accept)
			s.ServeHTTP(w, r)
			got, err := strconv.Atoi(w.Body.String())
			if err != nil || got < least || w.Code != http.StatusAccepted || w.Header().Get("X-Kind") != accept {
				t.Errorf("%s: got %d %q %v, want answer %d or a later one", accept, w.Code, w.Body, w.Header(), least)
			}
		})
	}
	scrape("text", 1)
	<-begun
	for range scrapes {
		scrape("text", 2)
	}
	scrape("proto", 2)
	time.Sleep(100 * time.Millisecond) // most have arrived
	close(proceed)
	all.Wait()
	if made < 3 || made > scrapes/2 {
		t.Errorf("%d answers were made, want 3 or few more", made)
	}
}
