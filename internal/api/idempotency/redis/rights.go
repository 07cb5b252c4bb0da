package redis

// Commands returns the commands that a [Store] with a prefix of its keys runs, including those in
// scripts, to check whether they are allowed.
func Commands(prefix string) [][]any {
	key := prefix + "i:none"
	return [][]any{
		{"eval", "return 1", 0}, {"evalsha", claim.Hash(), 0},
		{"get", key}, {"set", key, ""}, {"getrange", key, 0, 0}, {"pttl", key}, {"del", key},
	}
}
