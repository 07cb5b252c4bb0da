package api

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestPages: what is in a list while all its pages are read is in exactly one of them, whatever is
// added or removed between them, and the pages end.
func TestPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfDistinct(rapid.StringN(1, 3, -1), rapid.ID[string])
		list := keys.Draw(t, "list")
		always := slices.Clone(list)
		p := page{limit: rapid.IntRange(1, 5).Draw(t, "limit")}
		var got []string
		for turn := 0; ; turn++ {
			slices.Sort(list)
			part, next := cut(p, list, func(s string) string { return s })
			if len(part) > p.limit {
				t.Fatalf("a page of %d has %d entries", p.limit, len(part))
			}
			if got = append(got, part...); next.Next == "" {
				break
			}
			p.after = next.Next
			if turn > 100 {
				break // others are added again and again
			}
			if len(list) > 0 && rapid.Bool().Draw(t, "remove") {
				gone := rapid.SampledFrom(list).Draw(t, "gone")
				list = slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == gone })
				always = slices.DeleteFunc(always, func(s string) bool { return s == gone })
			}
			if added := rapid.StringN(1, 3, -1).Draw(t, "added"); !slices.Contains(list, added) {
				list = append(slices.Clone(list), added)
			}
		}
		for _, s := range always {
			if n := len(slices.DeleteFunc(slices.Clone(got), func(g string) bool { return g != s })); n != 1 {
				t.Fatalf("%q is in %d pages, want 1: %q", s, n, got)
			}
		}
	})
}

// TestPagesOfRooms: a caller that follows next gets all rooms, and the last page has no next.
func TestPagesOfRooms(t *testing.T) {
	all := make([]roomView, 5)
	for i := range all {
		all[i].Name = fmt.Sprint("room ", i)
	}
	name := func(r roomView) string { return r.Name }
	for _, tt := range []struct {
		after string
		limit int
		first string
		n     int
		next  string
	}{
		{"", 5, "room 0", 5, ""}, {"", 2, "room 0", 2, "room 1"}, {"room 1", 2, "room 2", 2, "room 3"}, {"room 3", 2, "room 4", 1, ""},
		{"room 1x", 1, "room 2", 1, "room 2"}, {"z", 2, "", 0, ""},
	} {
		got, next := cut(page{tt.after, tt.limit}, all, name)
		if len(got) != tt.n || tt.n > 0 && got[0].Name != tt.first || next.Next != tt.next {
			t.Errorf("after %q, %d: got %v, next %q, want %d from %q, next %q", tt.after, tt.limit, got, next.Next, tt.n, tt.first, tt.next)
		}
	}
}
