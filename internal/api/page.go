package api

import (
	"cmp"
	"slices"
)

// Limits of a page of a list.
const (
	defaultPage = 1000
	maxPage     = 10_000
)

// A page is a part of a list that is sorted by unique keys. The next one begins after the last key of
// this one, so what is in the list while all its pages are read is in exactly one of them, whatever is
// added or removed meanwhile.
type page struct {
	after string
	limit int
}

// pageOf returns the page that a query requests.
func pageOf(q query) (p page, err error) {
	if p.limit, err = q.number("limit", 1, maxPage, defaultPage); err != nil {
		return p, err
	}
	p.after = q.get("after")
	return p, nil
}

// more is the part of an answer that says where the next page begins; empty on the last one.
type more struct {
	Next string `json:"next,omitempty"`
}

// cut returns the page of a sorted list.
func cut[T any](p page, list []T, key func(T) string) ([]T, more) {
	first, found := slices.BinarySearchFunc(list, p.after, func(v T, after string) int { return cmp.Compare(key(v), after) })
	if found {
		first++
	}
	if list = list[first:]; len(list) <= p.limit {
		return list, more{}
	}
	list = list[:p.limit]
	return list, more{key(list[p.limit-1])}
}
