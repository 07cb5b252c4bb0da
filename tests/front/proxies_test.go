package front

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// The configurations of docs/load-balancers.md, in real proxies: stock clients poll
// and upgrade, and the server sees the client's address and its own origin.
func TestProxies(t *testing.T) {
	for _, proxy := range []struct {
		name, binary string
		args         func(file string) []string
		// complete makes a whole configuration of the document's part.
		complete func(config, dir, port string) string
	}{
		{"nginx", "/usr/sbin/nginx",
			func(file string) []string { return []string{"-c", file, "-e", "stderr"} },
			func(config, dir, port string) string {
				paths := ""
				for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
					paths += fmt.Sprintf("%s_temp_path %s/%s;\n", kind, dir, kind)
				}
				return fmt.Sprintf("daemon off; master_process off; pid %s/pid; error_log stderr;\nevents {}\nhttp {\naccess_log off;\n%s%s}\n",
					dir, paths, strings.Replace(config, "listen 80;", "listen 127.0.0.1:"+port+";", 1))
			}},
		{"haproxy", "/usr/sbin/haproxy",
			func(file string) []string { return []string{"-db", "-f", file} },
			func(config, _, port string) string {
				return strings.Replace(config, "bind :80", "bind 127.0.0.1:"+port, 1)
			}},
	} {
		t.Run(proxy.name, func(t *testing.T) {
			var mu sync.Mutex
			seen := make(map[string]bool) // clients' addresses
			srv := newServer(t, engineio.Options{
				Origins: []string{"https://other.example"},
				AllowRequest: func(r *http.Request) error {
					mu.Lock()
					defer mu.Unlock()
					seen[r.RemoteAddr+" "+r.URL.Scheme] = true
					return nil
				},
			}, zap.NewNop())
			web := httptest.NewServer(limit.Proxies{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}.Handler(
				http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/up" {
						return // HAProxy's check
					}
					srv.ServeHTTP(w, r)
				})))
			defer web.Close()

			port := freePort(t)
			config := regexp.MustCompile(`10\.0\.0\.1[12]:3000`).ReplaceAllString(documented(t, proxy.name), web.Listener.Addr().String())
			dir := t.TempDir()
			file := filepath.Join(dir, "config")
			if err := os.WriteFile(file, []byte(proxy.complete(config, dir, port)), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "127.0.0.1:"+port, proxy.binary, proxy.args(file)...)
			url := "http://127.0.0.1:" + port
			for transport, ends := range map[string]string{"polling": "polling", "websocket": "websocket", "upgrade": "websocket"} {
				echoes(t, runClient(t, url, transport, "/socket.io/", "", "ORIGIN="+url), ends)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(seen) != 1 || !seen["127.0.0.1 http"] {
				t.Errorf("seen %v", seen)
			}
		})
	}
}

// documented returns the configuration of a proxy in docs/load-balancers.md.
func documented(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/load-balancers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```"+name+"\n")
	config, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatalf("no configuration of %s", name)
	}
	return config
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// run starts a proxy, waits until it listens, and ends it with the test.
func run(t *testing.T, addr, binary string, args ...string) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { // ends with the process
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-exited
		if t.Failed() {
			t.Logf("%s: %s", binary, &output)
		}
	})
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-exited:
			t.Fatalf("%s has ended: %s", binary, &output)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen", binary)
		}
	}
}
