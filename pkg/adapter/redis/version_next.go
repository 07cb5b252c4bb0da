//go:build rejoin_next_wire_version

package redis

// version is a wire version that no release knows yet: the tests of updates build such a node.
const version = 3
