package limit

import (
	"net/http"
	"sync"
	"testing"

	"go.uber.org/zap"
)

// GETs that are refused do not take the place of a POST, not even for a moment.
func TestRefusedRequestsTakeNoPlace(t *testing.T) {
	f := NewForwarded(Quota{Name: ForwardedToNodes, Max: 64, Tally: NewTally(zap.NewNop())})
	post, get := &http.Request{Method: http.MethodPost}, &http.Request{Method: http.MethodGet}
	for range 63 {
		if !f.Enter(post) {
			t.Fatal("a POST is refused")
		}
	}
	var gets sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		gets.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if f.Enter(get) {
					t.Error("a GET has taken the last place")
					f.Leave()
				}
			}
		})
	}
	for range 20_000 {
		if !f.Enter(post) {
			t.Error("a POST is refused although there is a place for it")
			break
		}
		f.Leave()
	}
	close(stop)
	gets.Wait()
}
