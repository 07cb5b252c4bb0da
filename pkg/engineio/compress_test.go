package engineio

import (
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Each session compresses the same event again, so large responses have a budget, and are sent
// uncompressed beyond it. Small ones are always compressed.
func TestCompressionHasABudget(t *testing.T) {
	seen, logs := observer.New(zap.InfoLevel)
	b := setUp(t, Options{SendQueueBytes: 4 << 20, Logger: zap.New(seen)})
	b.compressed.SetLimit(1) // with the clock stopped
	var sids []string
	for range 30 {
		sids = append(sids, b.open())
	}
	compressed := func(bytes int) (n int) {
		t.Helper()
		p := Text([]byte(strings.Repeat("x", bytes-1)))
		for c := range b.Conns() {
			must(t, c.Send(p))
		}
		for _, sid := range sids {
			res, body := b.do("GET", sid, "", "Accept-Encoding", "gzip")
			switch {
			case res.Header.Get("Content-Encoding") == "gzip":
				n++
			case len(body) != bytes:
				t.Fatalf("%d bytes come", len(body))
			}
		}
		return n
	}
	for _, test := range []struct{ bytes, want int }{
		{compressionBurst + 1, 0}, {100 << 10, 10}, {100 << 10, 0}, {smallResponse, 30},
	} {
		if n := compressed(test.bytes); n != test.want {
			t.Errorf("%d responses of %d bytes are compressed, want %d", n, test.bytes, test.want)
		}
	}
	if n := b.Stats().Uncompressed; n != 80 {
		t.Errorf("%d are counted as not compressed, want 80", n)
	}
	if n := logs.FilterField(zap.String("limit", "compression")).Len(); n == 0 || n > 20 {
		t.Errorf("%d lines are logged", n)
	}
}
