package redisurl

import (
	"context"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/redistest"
)

// startPrivate starts a server with a certificate that this process does not trust,
// and returns it, its TLS address and the directory of the certificate.
func startPrivate(t *testing.T, name x509.Certificate, config ...string) (server *redistest.Server, addr, dir string) {
	t.Helper()
	dir = t.TempDir()
	writeCertificateTo(dir, "cert.pem", "key.pem", name)
	port := redistest.FreePort(t)
	server = redistest.Start(t, append([]string{"tls-port " + port, "tls-auth-clients no", "tls-cert-file " + filepath.Join(dir, "cert.pem"),
		"tls-key-file " + filepath.Join(dir, "key.pem"), "tls-ca-cert-file " + filepath.Join(dir, "cert.pem")}, config...)...)
	return server, "127.0.0.1:" + port, dir
}

func check(t *testing.T, url string) error {
	t.Helper()
	return parse(t, url).Check(deadline(t, 20*time.Second))
}

func TestServerNameAndPrivateCA(t *testing.T) {
	_, addr, dir := startPrivate(t, x509.Certificate{DNSNames: []string{"redis.internal"}})
	ca := "ca_file=" + url.QueryEscape(filepath.Join(dir, "cert.pem"))
	for query, good := range map[string]bool{
		"":                                  false,
		"?" + ca:                            false,
		"?server_name=redis.internal":       false,
		"?server_name=redis.internal&" + ca: true,
		"?server_name=other&" + ca:          false,
	} {
		if err := check(t, "rediss://"+addr+query); (err == nil) != good {
			t.Errorf("%q: %v", query, err)
		}
	}
}

func TestClientCertificate(t *testing.T) {
	_, addr, dir := startPrivate(t, x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, "tls-auth-clients yes")
	cert, key := url.QueryEscape(filepath.Join(dir, "cert.pem")), url.QueryEscape(filepath.Join(dir, "key.pem"))
	if err := check(t, "rediss://"+addr+"?ca_file="+cert); err == nil {
		t.Error("the server takes a client without a certificate")
	}
	if err := check(t, "rediss://"+addr+"?ca_file="+cert+"&cert_file="+cert+"&key_file="+key); err != nil {
		t.Error(err)
	}
}

// A changed password is read for the next connection.
func TestPasswordFile(t *testing.T) {
	server := redistest.Start(t, "user app on >first ~* &* +@all")
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	at := "redis://app@" + server.Addr + "?password_file=" + url.QueryEscape(file)
	target := parse(t, at)
	client := target.Client()
	defer client.Close()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]any{{"ACL", "SETUSER", "app", "resetpass", ">second"}, {"CLIENT", "KILL", "USER", "app"}} {
		if err := server.Client().Do(t.Context(), command...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	write("second")
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("the client that was there before: %v", err)
	}
	if err := target.Check(deadline(t, 20*time.Second)); err != nil {
		t.Error(err)
	}
	if _, err := Parse(strings.Replace(at, "app@", "app:other@", 1)); err == nil {
		t.Error("both a password and a file were accepted")
	}
}

func TestPasswordFileWithSentinels(t *testing.T) {
	sentinels := redistest.StartSentinels(t)
	for _, s := range []*redistest.Server{sentinels.Primary(), sentinels.Replica()} {
		if err := s.Client().Do(t.Context(), "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all").Err(); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := parse(t, sentinels.URL()+"&username=app&password_file="+url.QueryEscape(file))
	client := target.Client()
	defer client.Close()
	if who, err := client.Do(t.Context(), "ACL", "WHOAMI").Text(); err != nil || who != "app" {
		t.Errorf(`the client is %q: %v, want "app"`, who, err)
	}
	set(t, target, "k")
}

// A server closes idle connections. The next call does not fail because of that.
func TestIdleTLSConnection(t *testing.T) {
	server, addr, dir := startPrivate(t, x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	target := parse(t, "rediss://"+addr+"?ca_file="+url.QueryEscape(filepath.Join(dir, "cert.pem")))
	client := target.Client()
	defer client.Close()
	for i := range 5 {
		id, err := client.Do(t.Context(), "CLIENT", "ID").Int64()
		if err != nil {
			t.Fatalf("call %d, after an idle connection was closed: %v", i, err)
		}
		if n, err := server.Client().ClientKillByFilter(t.Context(), "ID", strconv.FormatInt(id, 10)).Result(); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		awaitGone(t, server.Client(), id)
	}
}

func awaitGone(t *testing.T, c *redis.Client, id int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		list, err := c.ClientList(ctx).Result()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(list, "id="+strconv.FormatInt(id, 10)+" ") {
			return
		}
	}
}
