//go:build !rejoin_next_wire_version

package redis

// version is the wire version that this node writes for other nodes; see wire.go. It reads this
// version and all before it. docs/operations.md describes updates that change it.
const version = 2
