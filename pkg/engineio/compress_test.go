package engineio

import (
	"strings"
	"testing"
	"time"
)

// Each session compresses the same event again, so large responses have a budget, and are sent
// uncompressed beyond it. Small ones are always compressed.
func TestCompressionHasABudget(t *testing.T) {
	b := setUp(t, Options{SendQueueBytes: 4 << 20})
	b.compressed.perSecond = 1 // with the clock stopped
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
}

func TestByteRate(t *testing.T) {
	r := byteRate{perSecond: 1000, burst: 500}
	begun := time.Now()
	for _, step := range []struct {
		at    time.Duration
		bytes int
		want  bool
	}{
		{0, 501, false}, {0, 300, true}, {0, 201, false}, {0, 200, true}, {0, 1, false},
		{100 * time.Millisecond, 101, false}, {100 * time.Millisecond, 100, true},
		{time.Hour, 500, true}, {time.Hour, 1, false},
	} {
		if got := r.take(begun.Add(step.at), step.bytes); got != step.want {
			t.Errorf("%d bytes after %v: %v, want %v", step.bytes, step.at, got, step.want)
		}
	}
}
