package integration

import (
	"net/url"
	"slices"
	"testing"
)

// TestAPIPages: a backend that follows next gets each socket, room and member of the cluster once.
func TestAPIPages(t *testing.T) {
	t.Parallel()
	n := startNode(t, withAPI)
	b, d := n.backend(), startDriver(t)
	var want []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		c := d.open(name, newest, n.url(), transports["websocket"])
		c.call("join", []string{"r", "r-" + name})
		want = append(want, c.state().ID)
	}
	slices.Sort(want)
	for path, keys := range map[string]func(apiReply) []string{
		"sockets?":        func(r apiReply) (all []string) { return collect(r.Sockets, func(s apiSocket) string { return s.ID }) },
		"members?room=r&": func(r apiReply) (all []string) { return collect(r.Members, func(m member) string { return m.ID }) },
		"rooms?":          func(r apiReply) (all []string) { return collect(r.Rooms, func(r apiRoom) string { return r.Name }) },
	} {
		var got []string
		pages, after := 0, ""
		for more := true; more; more = after != "" {
			r := b.get(path + "limit=2&after=" + url.QueryEscape(after))
			got, after = append(got, keys(r)...), r.Next
			if pages++; len(keys(r)) > 2 || pages > 5 {
				t.Fatalf("%s: page %d has %d entries", path, pages, len(keys(r)))
			}
		}
		expected := want
		if path == "rooms?" {
			expected = []string{"r", "r-a", "r-b", "r-c", "r-d", "r-e"}
		}
		if pages != 3 || !slices.Equal(got, expected) {
			t.Errorf("%s: got %q in %d pages, want %q in 3", path, got, pages, expected)
		}
	}
}

func collect[T any](list []T, key func(T) string) (all []string) {
	for _, v := range list {
		all = append(all, key(v))
	}
	return all
}
