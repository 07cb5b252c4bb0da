package adapter

import (
	"container/heap"
	"iter"
)

// Merge yields the events of several backlogs, each in order, in one order of
// positions. One that is in more than one of them comes once.
func Merge(parts [][]*Event) iter.Seq[*Event] {
	return func(yield func(*Event) bool) {
		var h byFirst
		for _, p := range parts {
			if len(p) > 0 {
				h = append(h, p)
			}
		}
		heap.Init(&h)
		var last *Event
		for len(h) > 0 {
			e := h[0][0]
			if h[0] = h[0][1:]; len(h[0]) > 0 {
				heap.Fix(&h, 0)
			} else {
				heap.Pop(&h)
			}
			if last != nil && e.Position == last.Position {
				continue
			}
			if last = e; !yield(e) {
				return
			}
		}
	}
}

// byFirst is a heap of non-empty runs of events, by their first.
type byFirst [][]*Event

func (h byFirst) Len() int           { return len(h) }
func (h byFirst) Less(i, j int) bool { return h[i][0].Position.Compare(h[j][0].Position) < 0 }
func (h byFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byFirst) Push(x any)        { *h = append(*h, x.([]*Event)) }

func (h *byFirst) Pop() any {
	last := len(*h) - 1
	p := (*h)[last]
	*h = (*h)[:last]
	return p
}
