package redisurl

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// files are the parameters of a URL that go-redis does not support.
type files struct {
	serverName, ca, certificate, key string
	password                         string
}

// takeFiles removes them from a URL and returns them.
func takeFiles(u *url.URL) (f files) {
	query := u.Query()
	for name, value := range map[string]*string{
		"server_name": &f.serverName, "ca_file": &f.ca, "cert_file": &f.certificate, "key_file": &f.key,
		"password_file": &f.password,
	} {
		*value = query.Get(name)
		query.Del(name)
	}
	u.RawQuery = query.Encode()
	return f
}

// configure applies the TLS parameters to a configuration, which is nil without TLS.
func (f *files) configure(c *tls.Config) error {
	switch {
	case f.serverName+f.ca+f.certificate+f.key == "":
		return nil
	case c == nil:
		return errors.New("server_name, ca_file, cert_file and key_file require TLS: use a scheme with rediss")
	case (f.certificate == "") != (f.key == ""):
		return errors.New("cert_file and key_file must be set together")
	}
	c.ServerName = f.serverName
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return fmt.Errorf("ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("ca_file: no PEM certificate in %s", f.ca)
		}
	}
	if f.certificate != "" {
		read := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.certificate, f.key)
			return &pair, err
		}
		if _, err := read(nil); err != nil {
			return fmt.Errorf("cert_file and key_file: %w", err)
		}
		c.GetClientCertificate = read
	}
	return nil
}

// readPassword reads the password. Trailing newlines are ignored.
func (f *files) readPassword() (string, error) {
	text, err := os.ReadFile(f.password)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}
