package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { http.DefaultTransport.(*http.Transport).CloseIdleConnections() }))
}

// patience bounds every wait of a test.
const patience = 20 * time.Second

var secret = []byte("a secret of thirty-two characters")

// keys of each type, and another one of the same type.
var (
	rsaKey, otherRSA   = newRSA(2048), newRSA(2048)
	ecKey, otherEC     = newEC(elliptic.P256()), newEC(elliptic.P256())
	ec384              = newEC(elliptic.P384())
	edKey, otherEd     = newEd(), newEd()
	shortRSA, ec224Key = newRSA(1024), newEC(elliptic.P224())
)

func newRSA(bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return key
}

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func newEd() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// public returns the PEM of public keys.
func public(t *testing.T, keys ...crypto.Signer) (text []byte) {
	t.Helper()
	for _, key := range keys {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	return text
}

// sign returns a token. Claims that are not given are valid.
func sign(t *testing.T, alg string, key any, claims jwt.MapClaims, header ...string) string {
	t.Helper()
	all := jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range claims {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	token := jwt.NewWithClaims(jwt.GetSigningMethod(alg), all)
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i]] = header[i+1]
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func verifier(t *testing.T, o Options) *Verifier {
	t.Helper()
	v, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// judge returns the code with which a token is refused, or "" if it is valid.
func judge(t *testing.T, v *Verifier, token string) Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := v.Verify(ctx, token)
	var refused *Error
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &refused):
		t.Fatalf("an error of another type: %v", err)
	case refused.Message == "":
		t.Error("refused without a word")
	}
	return refused.Code
}
