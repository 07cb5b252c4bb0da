package main

import (
	"fmt"
	"reflect"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// reloadable are the variables whose new values a running node uses after a SIGHUP. Environment
// variables of a process do not change, so these are values in files. The password of Redis and the
// certificate of its clients are in files that the URL names, and are read for each connection.
var reloadable = []string{"REJOIN_LOG_LEVEL", "REJOIN_API_KEYS", "REJOIN_API_CALLERS", "REJOIN_JWT_SECRET", "REJOIN_JWT_PUBLIC_KEY"}

// reload reads the configuration again, and uses the new values of reloadable variables and the new TLS
// certificate. If any value is refused, all remain as they are. It returns the present configuration.
func (n *node) reload(current config) config {
	before := current
	next, r := load()
	if len(r.problems) > 0 {
		for _, p := range r.problems {
			n.log.Error("reload refused; the configuration stays as it is", zap.String("problem", p))
		}
		return current
	}
	var used, ignored []string
	for i, v := range variables() {
		was, is := reflect.ValueOf(&current).Elem().Field(i), reflect.ValueOf(next).Field(i)
		switch {
		case sameValue(was, is):
		case slices.Contains(reloadable, v.name):
			used = append(used, v.name)
			was.Set(is)
		default:
			ignored = append(ignored, v.name)
		}
	}
	if err := n.use(current); err != nil {
		n.log.Error("reload failed; the configuration stays as it is", zap.Error(err))
		return before
	}
	for _, w := range r.warnings {
		n.log.Warn(w)
	}
	n.log.Info("configuration reloaded", zap.Strings("changed", used))
	if len(ignored) > 0 {
		n.log.Warn("changed values that need a restart", zap.Strings("variables", ignored))
	}
	return current
}

// use makes a running node use the values of the reloadable variables.
func (n *node) use(c config) error {
	level, err := zapcore.ParseLevel(c.LogLevel)
	if err != nil {
		return err // config's tag allows a level that zap does not know
	}
	if n.auth != nil {
		if err := n.auth.SetKeys([]byte(c.JWTSecret), []byte(c.JWTPublicKey)); err != nil {
			return err
		}
	}
	n.logLevel.SetLevel(level)
	n.backends.SetKeys(c.APIKeys.list, c.APICallers.all)
	if n.certificate != nil {
		n.certificate.Reload()
	}
	return nil
}

// sameValue compares two values of a variable. Targets of a URL are compared by their text, because they
// hold functions.
func sameValue(a, b reflect.Value) bool {
	if a.Type() == reflect.TypeFor[redisURL]() {
		return fmt.Sprint(a.Interface()) == fmt.Sprint(b.Interface())
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
