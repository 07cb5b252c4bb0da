package engineio

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkConnect measures the cost of a connection from its handshake to its end, without
// the network.
func BenchmarkConnect(b *testing.B) {
	run := func(b *testing.B, connect func(s *Server, ended <-chan struct{})) {
		ended := make(chan struct{}, 1)
		s, err := NewServer(Options{}, func(c *Conn) {
			for _, err := c.Recv(); err == nil; _, err = c.Recv() {
			}
			ended <- struct{}{}
		})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			connect(s, ended)
		}
		if err := s.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("polling", func(b *testing.B) {
		run(b, func(s *Server, ended <-chan struct{}) {
			s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/engine.io/?EIO=4&transport=polling", http.NoBody))
			for c := range s.Conns() {
				_ = c.Close(ForcedClose)
				s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/engine.io/?EIO=4&transport=polling&sid="+c.ID(), http.NoBody))
			}
			<-ended
		})
	})
	b.Run("websocket", func(b *testing.B) {
		run(b, func(s *Server, ended <-chan struct{}) {
			wire := &script{rest: bytes.NewReader(frame(finBit|opClose, nil))}
			r := httptest.NewRequest("GET", "/engine.io/?EIO=4&transport=websocket", http.NoBody)
			for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
				r.Header.Set(k, v)
			}
			s.ServeHTTP(hijackable{httptest.NewRecorder(), wire}, r)
			<-ended
		})
	})
}
