package main

import (
	"fmt"
	"io"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/auth"
)

// authOptions translates the configuration for package auth.
func authOptions(c config) auth.Options {
	mapping, err := c.mapping()
	if err != nil {
		panic(err) // Decode has checked each claim
	}
	return auth.Options{
		Secret:     []byte(c.JWTSecret),
		PublicKeys: []byte(c.JWTPublicKey),
		JWKSURL:    string(c.JwksURL),
		Issuer:     c.JWTIssuer,
		Audience:   c.JWTAudience,
		Default:    c.DefaultCan.or(auth.Permissions{}),
		Mapping:    mapping,
	}
}

// newVerifier returns the verifier of the clients' tokens, or nil if clients need no token.
func newVerifier(c config, log *zap.Logger) (*auth.Verifier, error) {
	if !c.authenticates() {
		return nil, nil
	}
	o := authOptions(c)
	o.Logger = log // nil for none
	return auth.New(o)
}

// printToken prints a token with some claims, signed with the configured secret,
// and returns the exit code.
func printToken(c config, claims string, stdout, stderr io.Writer) int {
	if c.JWTSecret == "" {
		fmt.Fprintln(stderr, "rejoin: -token signs with REJOIN_JWT_SECRET, which is not set")
		return exitUsage
	}
	token, err := auth.Sign(authOptions(c), claims)
	if err != nil {
		fmt.Fprintln(stderr, "rejoin:", err)
		return exitUsage
	}
	o := authOptions(c)
	o.Issuer, o.Audience = "", "" // have been added
	if _, notes, err := auth.Explain(o, claims); err == nil {
		note(notes, stderr)
	}
	fmt.Fprintln(stdout, token)
	return exitOK
}
