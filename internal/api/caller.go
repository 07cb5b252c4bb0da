package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/strict"
)

// A Caller is a backend with keys of its own, a name for logs and metrics, and a scope. A list of the
// scope that is nil does not limit it.
type Caller struct {
	Name       string        // unique, or "" for keys without a name
	Keys       []string      // any of them authenticates the caller
	Calls      []string      // names of calls, such as emit, and pprof for the profiles
	Namespaces auth.Patterns // that it may name
	Rooms      auth.Patterns // that it may name as targets or to read; those of users begin with user:
}

// pprof is the name of the profiles in Calls. They show the memory of the process, so nil does not
// include them for a caller with a name.
const pprof = "pprof"

// Limits of callers.
const (
	maxCallers = 100
	leastKey   = 16 // characters
)

var callerName = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,39}$`)

// Labels of requests by callers without a name, and without a valid key.
const (
	unnamed = "unnamed"
	nobody  = "none"
)

// ParseCallers parses a JSON object: its names are those of callers, its values objects with keys,
// calls, namespaces and rooms. Errors do not show keys.
func ParseCallers(text string) (all []Caller, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	if first, _ := d.Token(); first != json.Delim('{') || !json.Valid([]byte(text)) {
		return nil, errors.New("api: callers: want one JSON object")
	}
	seen := make(map[string]bool) // names and keys
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("api: callers: %w", err)
		}
		name, _ := token.(string)
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, fmt.Errorf("api: callers: %w", err)
		}
		c, err := parseCaller(name, raw)
		if err != nil {
			return nil, fmt.Errorf("api: caller %.40q: %w", name, err)
		}
		for _, one := range append([]string{"name " + name}, c.Keys...) {
			if seen[one] {
				return nil, fmt.Errorf("api: caller %q: duplicate name or key", name)
			}
			seen[one] = true
		}
		if all = append(all, c); len(all) > maxCallers {
			return nil, fmt.Errorf("api: more than %d callers", maxCallers)
		}
	}
	return all, nil
}

func parseCaller(name string, raw json.RawMessage) (Caller, error) {
	var body struct {
		Keys       []string `json:"keys"`
		Calls      []string `json:"calls"`
		Namespaces []string `json:"namespaces"`
		Rooms      []string `json:"rooms"`
	}
	if !callerName.MatchString(name) || name == unnamed || name == nobody {
		return Caller{}, fmt.Errorf("a name is 1 to 40 of a-z, 0-9 and . _ -, and not %s or %s", unnamed, nobody)
	}
	if !bytes.HasPrefix(raw, []byte{'{'}) {
		return Caller{}, errors.New("want an object with keys")
	}
	if err := decode(raw, &body); err != nil {
		// An error of the decoder could quote a key.
		return Caller{}, errors.New("want an object with keys, calls, namespaces and rooms, each a list of texts")
	}
	members, err := strict.Members(raw)
	if err != nil {
		return Caller{}, err
	}
	for list, value := range members {
		if string(value) == "null" {
			return Caller{}, fmt.Errorf("%s is null; leave it out to allow all", list)
		}
	}
	c := Caller{Name: name, Keys: body.Keys, Calls: body.Calls, Namespaces: body.Namespaces, Rooms: body.Rooms}
	if len(c.Keys) == 0 {
		return c, errors.New("keys must be a list of at least one key")
	}
	for _, key := range c.Keys {
		if len(key) < leastKey || !visible(key) {
			return c, fmt.Errorf("keys have at least %d visible characters of ASCII", leastKey)
		}
	}
	for list, names := range map[string][]string{"calls": c.Calls, "namespaces": c.Namespaces, "rooms": c.Rooms} {
		if names != nil && len(names) == 0 {
			return c, fmt.Errorf("%s is empty, which allows nothing; leave it out to allow all", list)
		}
	}
	for _, name := range c.Calls {
		if !slices.Contains(callNames(), name) {
			return c, fmt.Errorf("unknown call %.40q; there are %s", name, strings.Join(callNames(), ", "))
		}
	}
	if err := c.Namespaces.Check(); err != nil {
		return c, fmt.Errorf("namespaces: %w", err)
	}
	if err := c.Rooms.Check(); err != nil {
		return c, fmt.Errorf("rooms: %w", err)
	}
	return c, nil
}

// callNames returns the names of the calls that need a key.
func callNames() []string {
	names := slices.DeleteFunc(slices.Collect(maps.Keys(routes)), func(name string) bool { return name == openAPIName })
	return slices.Sorted(slices.Values(append(names, pprof)))
}

// label returns the caller's name in logs and metrics.
func (c *Caller) label() string {
	switch {
	case c == nil:
		return nobody
	case c.Name == "":
		return unnamed
	}
	return c.Name
}

// lacks returns the refusal of a caller whose scope does not include something.
func (c *Caller) lacks(list, what string, has []string) *failure {
	return fail(missingScope, "the scope of caller %q lacks %s in its %s, which are %s", c.Name, what, list, strings.Join(has, ", "))
}

// mayCall returns nil, or why the caller may not make a call.
func (c *Caller) mayCall(name string) *failure {
	switch {
	case slices.Contains(c.Calls, name), c.Calls == nil && name != pprof, c.Name == "":
		return nil
	case c.Calls == nil:
		return fail(missingScope, "the scope of caller %q lacks %s, which only its calls can include", c.Name, name)
	}
	return c.lacks("calls", fmt.Sprintf("%q", name), c.Calls)
}

// mayName returns nil, or why the caller may not name a namespace.
func (c *Caller) mayName(namespace string) error {
	if c.Namespaces == nil || c.Namespaces.Match(namespace) {
		return nil
	}
	return c.lacks("namespaces", fmt.Sprintf("%q", namespace), c.Namespaces)
}

// mayUse returns nil, or why the caller may not name one of some rooms.
func (c *Caller) mayUse(rooms ...string) error {
	if c.Rooms == nil {
		return nil
	}
	for _, room := range rooms {
		if !c.Rooms.Match(room) {
			return c.lacks("rooms", fmt.Sprintf("%q", room), c.Rooms)
		}
	}
	return nil
}

// mayReach returns nil, or why the caller may not reach sockets whatever rooms they are in.
func (c *Caller) mayReach(what string) error {
	if c.Rooms == nil {
		return nil
	}
	return fail(missingScope, "the scope of caller %q has only the rooms %s; %s requires a scope without rooms",
		c.Name, strings.Join(c.Rooms, ", "), what)
}

// mayClose returns nil, or why the caller may not close connections, which may have sockets of any
// namespace.
func (c *Caller) mayClose() error {
	if c.Namespaces == nil {
		return nil
	}
	return fail(missingScope, "the scope of caller %q has only the namespaces %s; close requires a scope without namespaces",
		c.Name, strings.Join(c.Namespaces, ", "))
}

// mayExcept returns nil, or why the caller may not except the rooms of a target from a call whose effect
// it can read: who is left out would show who is in them.
func (c *Caller) mayExcept(t target) error {
	except, err := withUsers(t.Except, t.ExceptUsers)
	if err != nil {
		return err
	}
	return c.mayUse(except...)
}

// seen returns the rooms of which the caller may know.
func (c *Caller) seen(rooms []string) []string {
	if c.Rooms == nil {
		return rooms
	}
	return slices.DeleteFunc(slices.Clone(rooms), func(room string) bool { return !c.Rooms.Match(room) })
}
