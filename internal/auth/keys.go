package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// minRSA is the minimum size of an RSA key, in bits. Shorter ones can be broken.
const minRSA = 2048

// asymmetric are the algorithms of public keys.
var asymmetric = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// A keyring holds the configured keys, by type. The type determines the algorithms: no algorithm
// belongs to two types.
type keyring struct {
	hmac    []jwt.VerificationKey // []byte
	rsa     []jwt.VerificationKey // *rsa.PublicKey
	ecdsa   []jwt.VerificationKey // *ecdsa.PublicKey
	ed25519 []jwt.VerificationKey // ed25519.PublicKey
}

func newKeyring(secret, publicKeys []byte) (k keyring, err error) {
	if len(secret) > 0 {
		k.hmac = append(k.hmac, secret)
	}
	for rest := publicKeys; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		key, err := parsePublicKey(block)
		if err == nil {
			err = k.add(key)
		}
		if err != nil {
			return keyring{}, fmt.Errorf("auth: public key: %w", err)
		}
	}
	if len(publicKeys) > 0 && len(k.rsa)+len(k.ecdsa)+len(k.ed25519) == 0 {
		return keyring{}, errors.New("auth: public key: no PEM block")
	}
	return k, nil
}

// parsePublicKey parses a public key in one of the usual forms.
func parsePublicKey(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	}
	return nil, fmt.Errorf("PEM block %q, want PUBLIC KEY or CERTIFICATE", block.Type)
}

// add stores a key under its type.
func (k *keyring) add(key any) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSA {
			return fmt.Errorf("RSA key has %d bits, want at least %d", n, minRSA)
		}
		k.rsa = append(k.rsa, key)
	case *ecdsa.PublicKey:
		k.ecdsa = append(k.ecdsa, key)
		if len(k.of(jwt.SigningMethodES256))+len(k.of(jwt.SigningMethodES384))+len(k.of(jwt.SigningMethodES512)) < len(k.ecdsa) {
			return fmt.Errorf("ECDSA key on curve %s, want P-256, P-384 or P-521", key.Params().Name)
		}
	case ed25519.PublicKey:
		k.ed25519 = append(k.ed25519, key)
	default:
		return fmt.Errorf("%T is not a key for signatures", key)
	}
	return nil
}

// methods returns the algorithms for which there are keys.
func (k *keyring) methods() (names []string) {
	for _, name := range append([]string{"HS256", "HS384", "HS512"}, asymmetric...) {
		if len(k.of(jwt.GetSigningMethod(name))) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// of returns the keys for an algorithm.
func (k *keyring) of(method jwt.SigningMethod) []jwt.VerificationKey {
	switch method := method.(type) {
	case *jwt.SigningMethodHMAC:
		return k.hmac
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		return k.rsa
	case *jwt.SigningMethodECDSA:
		return slices.DeleteFunc(slices.Clone(k.ecdsa), func(key jwt.VerificationKey) bool {
			return key.(*ecdsa.PublicKey).Params().BitSize != method.CurveBits
		})
	case *jwt.SigningMethodEd25519:
		return k.ed25519
	}
	return nil
}
