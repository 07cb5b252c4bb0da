package adapter

import (
	"container/heap"
	"iter"
	"slices"
)

// Merge yields the events of several backlogs, each in order, in one order of
// positions. Copies of one event, which are for different rooms, are merged into
// one. The events of parts are not changed.
func Merge(parts [][]*Event) iter.Seq[*Event] {
	return func(yield func(*Event) bool) {
		var h byFirst
		for _, p := range parts {
			if len(p) > 0 {
				h = append(h, p)
			}
		}
		heap.Init(&h)
		for len(h) > 0 {
			e := h.next()
			if len(h) > 0 && h[0][0].Position == e.Position {
				e = h.merge(e)
			}
			if !yield(e) {
				return
			}
		}
	}
}

// merge returns e merged with its other copies, which are next in the heap.
func (h *byFirst) merge(e *Event) *Event {
	merged := *e
	merged.Target.To = slices.Clone(e.Target.To)
	for len(*h) > 0 && (*h)[0][0].Position == e.Position {
		if to := h.next().Target.To; !slices.Equal(to, e.Target.To) {
			merged.Target.To = append(merged.Target.To, to...)
		}
	}
	return &merged
}

// byFirst is a heap of non-empty runs of events, ordered by their first event.
type byFirst [][]*Event

// next removes the first event.
func (h *byFirst) next() *Event {
	runs := *h
	e := runs[0][0]
	if runs[0] = runs[0][1:]; len(runs[0]) > 0 {
		heap.Fix(h, 0)
	} else {
		heap.Pop(h)
	}
	return e
}

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
