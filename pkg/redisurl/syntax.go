package redisurl

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Errors of a URL's parts. They show no part's text, because that may belong to a password whose
// special characters are not encoded.
var (
	errNotURL      = errors.New("not a Redis URL: must begin with a scheme and ://, such as redis://host:6379")
	errCredentials = errors.New("user or password: special characters must be percent-encoded, such as %40 for @, %2F for / and %23 for #")
	errHost        = errors.New("host: missing or malformed")
	errHosts       = errors.New("more than one host: name further hosts with parameters like addr=host:6379")
	errPort        = errors.New("port: must be a number from 1 to 65535")
	errDatabase    = errors.New("database: the path must be a number, such as /0")
	errQuery       = errors.New("parameters: malformed percent-encoding, or a semicolon")
	errFragment    = errors.New("unexpected #: in a user or password it must be written %23")
)

// parts splits a URL. An error names the part that is wrong.
func parts(raw string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || scheme == "" {
		return nil, errNotURL
	}
	authority, behind := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, behind = rest[:i], rest[i:]
	}
	if strings.Contains(behind, "@") {
		return nil, errCredentials
	}
	if strings.Contains(behind, "#") {
		return nil, errFragment
	}
	host := authority[strings.LastIndex(authority, "@")+1:]
	if strings.Contains(host, ",") {
		return nil, errHosts
	}
	if _, err := url.Parse("redis://" + host); err != nil {
		if i := strings.LastIndex(host, ":"); i > strings.LastIndex(host, "]") {
			return nil, errPort
		}
		return nil, errHost
	}
	if _, err := url.Parse("redis://" + authority); err != nil {
		return nil, errCredentials
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errNotURL
	case u.Hostname() == "":
		return nil, errHost
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errPort
		}
	}
	if path := strings.TrimPrefix(u.Path, "/"); path != "" {
		if _, err := strconv.ParseUint(path, 10, 31); err != nil {
			return nil, errDatabase
		}
	}
	if _, err := url.ParseQuery(u.RawQuery); err != nil {
		return nil, errQuery
	}
	return u, nil
}

// parameter translates go-redis' error of a parameter. If a password is among the parameters, an unknown
// one is not named, because it may be a part of it.
func parameter(u *url.URL, err error) error {
	text := strings.TrimPrefix(err.Error(), "redis: ")
	name, unknown := strings.CutPrefix(text, "unexpected option: ")
	switch {
	case unknown && u.Query().Has("password"):
		return errors.New("unknown parameter (an & in a password must be written %26)")
	case unknown:
		return fmt.Errorf("unknown parameter %.50q", name)
	}
	return errors.New(text)
}
