package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signedFor is the default lifetime of a signed token.
const signedFor = time.Hour

// Sign returns a token with some claims, a JSON object, signed with the secret of the options: for
// experiments without a token issuer. If the claims lack them, it adds the time, an expiry one hour
// from now, and the issuer and the audience that the options require. A token that a verifier with
// the same options would refuse is an error.
func Sign(o Options, text string) (string, error) {
	if len(o.Secret) == 0 {
		return "", errors.New("auth: no secret to sign with")
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber() // unchanged from the text
	var claims jwt.MapClaims
	if err := d.Decode(&claims); err != nil || claims == nil || d.More() {
		return "", errors.New("auth: claims are not one JSON object")
	}
	now := time.Now()
	for name, value := range map[string]any{"iat": now.Unix(), "exp": now.Add(signedFor).Unix(), "iss": o.Issuer, "aud": o.Audience} {
		if _, said := claims[name]; !said && value != "" {
			claims[name] = value
		}
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(o.Secret)
	if err != nil {
		return "", fmt.Errorf("auth: sign: %w", err)
	}
	o.JWKSURL = "" // must not be queried for this
	v, err := New(o)
	if err == nil {
		_, err = v.Verify(context.Background(), token)
	}
	if err != nil {
		return "", err
	}
	return token, nil
}
