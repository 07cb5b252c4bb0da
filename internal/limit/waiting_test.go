package limit

import (
	"net"
	"net/http"
	"testing"
	"time"
)

func TestWaitingClosesTheLongest(t *testing.T) {
	w := NewWaiting(2)
	var conns []net.Conn
	for range 4 {
		c, peer := net.Pipe()
		defer peer.Close()
		conns = append(conns, c)
	}
	open := func(i int) bool { return conns[i].SetDeadline(time.Time{}) == nil }
	w.ConnState(conns[0], http.StateNew)
	w.ConnState(conns[1], http.StateNew)
	w.ConnState(conns[0], http.StateActive)
	w.ConnState(conns[2], http.StateNew) // two wait
	w.ConnState(conns[0], http.StateIdle)
	if !open(0) || open(1) || !open(2) {
		t.Errorf("open: %v %v %v", open(0), open(1), open(2))
	}
	w.ConnState(conns[1], http.StateClosed)
	w.ConnState(conns[2], http.StateHijacked)
	w.ConnState(conns[3], http.StateNew)
	if !open(0) || !open(3) || w.Refused()[IdleConnections] != 1 || len(w.place) != 2 || w.order.Len() != 2 {
		t.Errorf("open: %v %v, %v", open(0), open(3), w.Refused())
	}
	for _, c := range conns {
		c.Close()
	}
}
