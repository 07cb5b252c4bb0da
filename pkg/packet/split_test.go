package packet

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestSplitArray(t *testing.T) {
	tests := []struct {
		data string
		want []string
	}{
		{``, nil},
		{`[]`, nil},
		{` [ ] `, nil},
		{`[1]`, []string{`1`}},
		{` [ 1 , "a,]" , [2,[3]] , {"b":[]} ] `, []string{`1`, `"a,]"`, `[2,[3]]`, `{"b":[]}`}},
		{`[0,1,2,3,4,5,6,7,8,9]`, []string{`0`, `1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`, `9`}},
	}
	for _, test := range tests {
		elems, err := SplitArray([]byte(test.data))
		var got []string
		for _, e := range elems {
			got = append(got, string(e))
			if cap(e) != len(e) {
				t.Errorf("%s: appending to %s would overwrite the bytes after it", test.data, e)
			}
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, %v, want %q", test.data, got, err, test.want)
		}
	}
}

func TestSplitArrayRefuses(t *testing.T) {
	for _, data := range []string{` `, `{}`, `1`, `[`, `[1`, `[1,]`, `[,]`, `[1 2]`, `[]]`, `[] x`} {
		elems, err := SplitArray([]byte(data))
		var e *Error
		if !errors.As(err, &e) || e.Reason != InvalidJSON || elems != nil {
			t.Errorf("%s: got %s, %v", data, elems, err)
		}
	}
}

// TestSplitArrayBoundsElements: data that is not from a client, such as an event in Redis,
// is bounded, too. Nested arrays are not split.
func TestSplitArrayBoundsElements(t *testing.T) {
	most := "[" + strings.Repeat("1,", MaxElements-1) + "[" + strings.Repeat("1,", MaxElements) + "1]]"
	if elems, err := SplitArray([]byte(most)); err != nil || len(elems) != MaxElements {
		t.Errorf("got %d elements, %v, want %d", len(elems), err, MaxElements)
	}
	var e *Error
	if elems, err := SplitArray([]byte("[1," + most[1:])); !errors.As(err, &e) || e.Reason != TooManyElements || elems != nil {
		t.Errorf("one more: %d elements, %v", len(elems), err)
	}
}

func TestSplitEvent(t *testing.T) {
	tests := []struct{ data, name, args string }{
		{``, ``, ``},
		{`["a"]`, `a`, ``},
		{`["a",1,"b"]`, `a`, `1 "b"`},
		{` [ "a" , 1 ]`, `a`, `1`},
		{`["\u0061\n\"",1]`, "a\n\"", `1`},
		{`["",1]`, ``, `1`},
		// Names of numbers are those of JavaScript's String.
		{`[7]`, `7`, ``},
		{`[-7.50]`, `-7.5`, ``},
		{`[-0]`, `0`, ``},
		{`[1E2]`, `100`, ``},
		{`[1e21]`, `1e+21`, ``},
		{`[1e-7]`, `1e-7`, ``},
		{`[123456789012345678901]`, `123456789012345680000`, ``},
		{`[1e400]`, `Infinity`, ``},
		{`[-1e400]`, `-Infinity`, ``},
	}
	for _, test := range tests {
		name, args, err := SplitEvent([]byte(test.data))
		got := ""
		for i, a := range args {
			if i > 0 {
				got += " "
			}
			got += string(a)
		}
		if err != nil || name != test.name || got != test.args {
			t.Errorf("%s: got %q, %s, %v, want %q, %s", test.data, name, got, err, test.name, test.args)
		}
	}
}

func TestSplitEventRefuses(t *testing.T) {
	for data, reason := range map[string]Reason{
		`[]`:          UnexpectedPayload,
		`[null]`:      UnexpectedPayload,
		`["connect"]`: ReservedEvent,
		`["a"`:        InvalidJSON,
	} {
		_, _, err := SplitEvent([]byte(data))
		var e *Error
		if !errors.As(err, &e) || e.Reason != reason {
			t.Errorf("%s: got %v, want %q", data, err, reason)
		}
	}
}
