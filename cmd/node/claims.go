package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/rejoin-io/rejoin/internal/auth"
)

// The variables of claims keep their texts, which Decode has checked, until mapping puts them
// together.
type (
	claim      string
	claimRooms []string
	claimCan   string
)

func (c *claim) Decode(s string) error {
	*c = claim(strings.TrimSpace(s))
	return checkClaims(config{ClaimUser: *c})
}

func (r *claimRooms) Decode(s string) error {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	if err := (*list)(r).Decode(s); err != nil {
		return err
	}
	return checkClaims(config{ClaimRooms: *r})
}

func (c *claimCan) Decode(s string) error {
	*c = claimCan(strings.TrimSpace(s))
	return checkClaims(config{ClaimCan: *c})
}

// checkClaims returns the error of a variable, which is shown.
func checkClaims(c config) error {
	if _, err := c.mapping(); err != nil {
		return &adviceError{err}
	}
	return nil
}

// mapping returns the mapping of the configured claims.
func (c *config) mapping() (m auth.Mapping, err error) {
	if c.ClaimAudience != "" {
		err = m.MapAudience(string(c.ClaimAudience))
	}
	if c.ClaimUser != "" && err == nil {
		err = m.MapUser(string(c.ClaimUser))
	}
	for _, rule := range c.ClaimRooms {
		if err == nil {
			err = m.MapRooms(rule)
		}
	}
	if c.ClaimCan != "" && err == nil {
		err = m.MapPermissions(string(c.ClaimCan))
	}
	return m, err
}

// mapsClaims reports whether claims are mapped.
func (c *config) mapsClaims() bool {
	return c.ClaimAudience != "" || c.ClaimUser != "" || len(c.ClaimRooms) > 0 || c.ClaimCan != ""
}

func (c *config) validateClaims(r *report) {
	if !c.mapsClaims() {
		return
	}
	if !c.authenticates() {
		r.warn("REJOIN_CLAIM_AUDIENCE, REJOIN_CLAIM_USER, REJOIN_CLAIM_ROOMS and REJOIN_CLAIM_CAN have no effect without a key: clients need no token")
	}
	if c.ClaimAudience != "" && c.JWTAudience == "" {
		r.warn("REJOIN_CLAIM_AUDIENCE has no effect without REJOIN_JWT_AUDIENCE")
	}
	m := authOptions(*c).Mapping
	if err := m.Check(c.DefaultCan.or(auth.Permissions{})); err != nil {
		r.refuse("REJOIN_CLAIM_CAN", string(c.ClaimCan), fmt.Sprintf("within the limits of a token together with REJOIN_DEFAULT_CAN (%v)", err))
	}
}

// explainClaims prints what clients with some claims may do, and returns the exit code. It needs no
// secret, so that claims of any issuer can be tried.
func explainClaims(c config, claims string, stdout, stderr io.Writer) int {
	id, notes, err := auth.Explain(authOptions(c), claims)
	if err != nil {
		fmt.Fprintln(stderr, "rejoin:", err)
		return exitUsage
	}
	note(notes, stderr)
	fmt.Fprintln(stdout, id)
	return exitOK
}

func note(notes []string, stderr io.Writer) {
	for _, text := range notes {
		fmt.Fprintln(stderr, "rejoin: note:", text)
	}
}
