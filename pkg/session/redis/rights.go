package redis

// Commands returns the commands that a [Store] with a prefix of its keys runs, including those in
// scripts: with these arguments they need the same rights. They are for redisurl's Target.Denied,
// and must not be executed.
func Commands(prefix string) [][]any {
	key := prefix + "s:none"
	return [][]any{
		{"eval", "return 1", 0}, {"evalsha", askTime.hash, 0}, {"time"},
		{"get", key}, {"set", key, ""}, {"getrange", key, 0, 0}, {"pexpire", key, 1}, {"pttl", key}, {"del", key},
	}
}
