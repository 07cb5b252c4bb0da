package limit

import "net/netip"

// network returns the address whose limits apply to an address in net/http's form.
func network(remote string) netip.Addr { return networkOf(address(remote)) }

// networkOf returns the address whose limits apply to an address: itself, or its IPv6 network of 64
// bits.
func networkOf(addr netip.Addr) netip.Addr {
	if addr.Is6() && !addr.IsLoopback() {
		addr = netip.PrefixFrom(addr, 64).Masked().Addr()
	}
	return addr
}

// address returns the IP address in net/http's form of one, with or without a port; the zero
// address if it has none.
func address(remote string) netip.Addr {
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		withPort, _ := netip.ParseAddrPort(remote)
		addr = withPort.Addr()
	}
	return plain(addr)
}

// plain returns an address as others are compared with it.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }
