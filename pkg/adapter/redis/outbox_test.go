package redis

import (
	"fmt"
	"testing"
)

// TestCallsAreBoundedInCopies: events whose copies are large are not published in one call.
func TestCallsAreBoundedInCopies(t *testing.T) {
	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprint("r/,", i)
	}
	o := outbox{ready: make(chan struct{}, 1)}
	for range 10 {
		if err := o.put(&parcel{rooms: names, payload: make([]byte, 10_000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.put(&parcel{rooms: names, payload: make([]byte, callBytes/10)}); err != nil { // goes alone
		t.Fatal(err)
	}
	if err := o.put(&parcel{rooms: names[:1], payload: make([]byte, callBytes-10_000)}); err != nil {
		t.Fatal(err)
	}
	var calls []int
	for all := o.next(); len(all) > 0; all = o.next() {
		calls = append(calls, len(all))
	}
	if want := []int{4, 4, 2, 1, 1}; fmt.Sprint(calls) != fmt.Sprint(want) {
		t.Errorf("calls have %v events, want %v", calls, want)
	}
	if o.bytes != 0 {
		t.Errorf("%d bytes wait in an empty outbox", o.bytes)
	}
}
