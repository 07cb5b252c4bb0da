package socketio

import (
	"testing"
	"unsafe"
)

// A server holds many sockets, and the next size class of the allocator has 896 bytes.
func TestSocketFitsItsSizeClass(t *testing.T) {
	if n := unsafe.Sizeof(Socket{}); n > 768 {
		t.Errorf("a Socket has %d bytes, want at most 768: keep fields that few sockets need behind a pointer", n)
	}
}
