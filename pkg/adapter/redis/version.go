//go:build !rejoin_next_wire_version

package redis

// version is that of what this node writes for other nodes; see wire.go. It reads
// this one and all before it. docs/operations.md says what a change of it means for
// an update.
const version = 2
