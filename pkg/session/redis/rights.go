package redis

// Commands returns the commands that a [Store] with a prefix of its keys runs, those
// in scripts included: with these arguments they need the same rights. It is for
// redisurl's Target.Denied, and they are not to be executed.
func Commands(prefix string) [][]any {
	key := prefix + "s:none"
	return [][]any{
		{"eval", "return 1", 0}, {"evalsha", askTime.hash, 0}, {"time"},
		{"get", key}, {"set", key, ""}, {"getrange", key, 0, 0}, {"pexpire", key, 1}, {"del", key},
	}
}
