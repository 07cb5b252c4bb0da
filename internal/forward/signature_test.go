package forward

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

func newForwarder(t *testing.T, node, secret string) *Forwarder {
	t.Helper()
	f, err := New(Options{Node: node, Secret: secret, Directory: &book{}, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// received turns a client's request into the form in which a server receives it.
func received(r *http.Request) *http.Request {
	in := httptest.NewRequest(r.Method, r.URL.RequestURI(), nil)
	in.Header = r.Header.Clone()
	in.RemoteAddr = "10.0.0.7:41234" // the node's
	return in
}

const signedURI = Prefix + "/socket.io/?EIO=4&transport=polling&sid=n001xxxxxxxxxxxxxxxx"

func TestSignature(t *testing.T) {
	from, to := newForwarder(t, "n000", secret), newForwarder(t, "n001", secret)
	at := time.UnixMilli(1_700_000_000_000)
	from.now = func() time.Time { return at }
	for _, test := range []struct {
		name   string
		signer *Forwarder
		late   time.Duration
		change func(*http.Request)
		want   Refusal
	}{
		{name: "good"},
		{name: "nearly stale", late: maxSkew},
		{name: "nearly too early", late: -maxSkew},
		{name: "stale", late: maxSkew + time.Millisecond, want: Stale},
		{name: "too early", late: -maxSkew - time.Millisecond, want: Stale},
		{name: "unsigned", change: func(r *http.Request) { r.Header.Del(headerSignature) }, want: Unsigned},
		{name: "a client's", change: func(r *http.Request) { strip(r.Header) }, want: Unsigned},
		{name: "not hexadecimal", change: func(r *http.Request) { r.Header.Set(headerSignature, "zz") }, want: Forged},
		{name: "cut short", change: func(r *http.Request) {
			r.Header.Set(headerSignature, r.Header.Get(headerSignature)[:62])
		}, want: Forged},
		{name: "another secret", signer: newForwarder(t, "n000", secret+"!"), want: Forged},
		{name: "another method", change: func(r *http.Request) { r.Method = "POST" }, want: Forged},
		{name: "another session", change: func(r *http.Request) { r.URL.RawQuery += "2" }, want: Forged},
		{name: "another path", change: func(r *http.Request) { r.URL.Path = Prefix + "/api/" }, want: Forged},
		{name: "another client", change: func(r *http.Request) { r.Header.Set(headerClient, "10.0.0.2:1") }, want: Forged},
		{name: "another sender", change: func(r *http.Request) { r.Header.Set(headerFrom, "n002") }, want: Forged},
		{name: "dated again", late: time.Hour, change: func(r *http.Request) {
			r.Header.Set(headerTime, strconv.FormatInt(at.Add(time.Hour).UnixMilli(), 10))
		}, want: Forged},
		{name: "addressed again", change: func(r *http.Request) { r.Header.Set(headerTo, "n001"); r.Header.Set(headerFrom, "n001") }, want: Forged},
		{name: "for another node", change: func(r *http.Request) { from.sign(r, "n002", "10.0.0.1:1") }, want: Misdirected},
		{name: "without a time", change: func(r *http.Request) {
			r.Header.Del(headerTime)
			r.Header.Set(headerSignature, hexMAC(from, r))
		}, want: Stale},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", signedURI, nil)
			signer := from
			if test.signer != nil {
				signer = test.signer
			}
			signer.sign(r, "n001", "10.0.0.1:1")
			if test.change != nil {
				test.change(r)
			}
			to.now = func() time.Time { return at.Add(test.late) }
			before := to.Stats().Refused
			served := 0
			w := httptest.NewRecorder()
			to.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				served++
				if r.URL.String() != strings.TrimPrefix(signedURI, Prefix) || r.RequestURI != r.URL.String() || r.RemoteAddr != "10.0.0.1:1" {
					t.Errorf("the engine sees %s (%s) of %s", r.URL, r.RequestURI, r.RemoteAddr)
				}
			})).ServeHTTP(w, received(r))
			if test.want == "" {
				if served != 1 || w.Code != http.StatusOK {
					t.Errorf("status %d %s, served %d times, want %d, 1", w.Code, w.Body, served, http.StatusOK)
				}
				return
			}
			var body struct{ Code, Message string }
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || Refusal(body.Code) != test.want || body.Message == "" {
				t.Errorf("%v: %s, want %s", err, w.Body, test.want)
			}
			if served != 0 || w.Code != http.StatusForbidden {
				t.Errorf("status %d, served %d times, want %d, 0", w.Code, served, http.StatusForbidden)
			}
			if n := to.Stats().Refused[test.want] - before[test.want]; n != 1 {
				t.Errorf("counted %d times, want 1", n)
			}
		})
	}
}

func hexMAC(f *Forwarder, r *http.Request) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, v := range f.mac(r.Method, r.URL.RequestURI(), r.Header) {
		b.WriteByte(digits[v>>4])
		b.WriteByte(digits[v&15])
	}
	return b.String()
}

// A request that was signed for one node is refused by another.
func TestReplayAtAnotherNode(t *testing.T) {
	from := newForwarder(t, "n000", secret)
	r := httptest.NewRequest("GET", signedURI, nil)
	from.sign(r, "n001", "10.0.0.1:1")
	for node, want := range map[string]Refusal{"n001": "", "n002": Misdirected} {
		if got := newForwarder(t, node, secret).verify(received(r)); got != want {
			t.Errorf("%s: %q, want %q", node, got, want)
		}
	}
}

func TestSecretIsNotSent(t *testing.T) {
	r := httptest.NewRequest("GET", signedURI, nil)
	newForwarder(t, "n000", secret).sign(r, "n001", "10.0.0.1:1")
	for name, values := range r.Header {
		if strings.Contains(strings.Join(values, ""), secret) {
			t.Errorf("the header %s contains the secret: %q", name, values)
		}
	}
}

// A request that has been forwarded to the wrong node ends there.
func TestForwardedOnce(t *testing.T) {
	c := setUp(t, 3, func(*engineio.Options, *Options) {})
	sid := c.open(c.nodes[2])
	r, err := http.NewRequest("GET", c.nodes[1].internal.URL+Prefix+"/engine.io/?EIO=4&transport=polling&sid="+sid, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[0].sign(r, c.nodes[1].id, "10.0.0.1:1")
	res, err := c.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("status %s", res.Status)
	}
	if n := c.nodes[1].Stats().Forwarded; n[OK]+n[NoOwner]+n[Failed]+n[Gone] != 0 {
		t.Errorf("forwarded: %v", n)
	}
}
