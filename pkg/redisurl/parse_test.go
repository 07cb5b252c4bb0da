package redisurl

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/maintnotifications"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		url, name  string
		form       Form
		user, pass string
		db         int
		tls        bool
	}{
		{"redis://localhost", "redis://localhost:6379", Single, "", "", 0, false},
		{"redis://u:p@h:1/3", "redis://h:1", Single, "u", "p", 3, false},
		{"rediss://:p%40%2F@h:1?db=2", "rediss://h:1", Single, "", "p@/", 2, true},
		{"redis://[::1]:7", "redis://[::1]:7", Single, "", "", 0, false},
		{"redis+sentinel://su:sp@h1?addr=h2:7&master_name=m&username=u&password=p", "redis+sentinel://h1:26379,h2:7", Sentinel, "u", "p", 0, false},
		{"rediss+sentinel://h1:1/5?master_name=m", "rediss+sentinel://h1:1", Sentinel, "", "", 5, true},
		{"redis+cluster://u:p@h1:1?addr=h2:2&addr=h3:3", "redis+cluster://h1:1,h2:2,h3:3", Cluster, "u", "p", 0, false},
		{"rediss+cluster://h1?skip_verify=true", "rediss+cluster://h1:6379", Cluster, "", "", 0, true},
	} {
		target, err := Parse(c.url)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.url, err)
			continue
		}
		o := target.at("x:1")
		if target.String() != c.name || target.Form() != c.form || o.Username != c.user || o.Password != c.pass || o.DB != c.db || (o.TLSConfig != nil) != c.tls {
			t.Errorf("Parse(%q): %s, %s, %q %q, db %d, TLS %v", c.url, target, target.Form(), o.Username, o.Password, o.DB, o.TLSConfig != nil)
		}
		if err := target.Client().Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

func TestSentinelsHaveCredentialsOfTheirOwn(t *testing.T) {
	target, err := Parse("redis+sentinel://su:sp@h/4?master_name=m&username=u&password=p")
	if err != nil {
		t.Fatal(err)
	}
	if o := target.ask; o.Username != "su" || o.Password != "sp" || o.DB != 0 {
		t.Errorf(`Sentinels are asked as %q with %q, db %d, want "su", "sp", 0`, o.Username, o.Password, o.DB)
	}
}

// A URL cannot change fixed options; the others are passed through.
func TestSettings(t *testing.T) {
	for _, url := range []string{
		"redis://h?max_retries=9&protocol=3&read_timeout=7s&pool_size=3",
		"redis+sentinel://h?master_name=m&max_retries=9&protocol=3&read_timeout=7s&pool_size=3&dialer_retries=4",
		"redis+cluster://h?max_retries=9&protocol=3&read_timeout=7s&pool_size=3&max_redirects=5",
	} {
		target, err := Parse(url)
		if err != nil {
			t.Errorf("Parse(%q): %v", url, err)
			continue
		}
		o := target.at("x:1")
		if o.MaxRetries != -1 || o.Protocol != 2 || !o.ContextTimeoutEnabled || !o.DisableIdentity || o.DialerRetries != 1 ||
			o.MaintNotificationsConfig.Mode != maintnotifications.ModeDisabled {
			t.Errorf("%s: got options %+v", url, o)
		}
		if o.ReadTimeout != 7*time.Second || o.PoolSize != 3 {
			t.Errorf("%s: the read timeout is %v, the pool size %d, want %v, 3", url, o.ReadTimeout, o.PoolSize, 7*time.Second)
		}
	}
}

func TestOptionsAreTheCallers(t *testing.T) {
	target, err := Parse("redis://:p@h:1")
	if err != nil {
		t.Fatal(err)
	}
	o, err := target.Primary(t.Context(), "k")
	if err != nil || o.Addr != "h:1" {
		t.Fatalf("Primary: %+v, %v", o, err)
	}
	o.Password, o.MaintNotificationsConfig.Mode = "changed", maintnotifications.ModeEnabled
	if o, _ := target.Primary(t.Context(), "k"); o.Password != "p" || o.MaintNotificationsConfig.Mode != maintnotifications.ModeDisabled {
		t.Error("a change of the options changed the target")
	}
}

func TestRefused(t *testing.T) {
	for url, want := range map[string]string{
		"":                         "not a Redis URL",
		"localhost:6379":           "not a Redis URL",
		"redis:localhost":          "not a Redis URL",
		"redis+cluster://h:1,i:1":  "addr",
		"http://h":                 `scheme "http"`,
		"redis+single://h":         `scheme "redis+single"`,
		"redis+magic://h":          `scheme "redis+magic"`,
		"redis+://h":               `unknown scheme "redis+"`,
		"redis:/127.0.0.1:6379":    "must begin with",
		"redis://":                 "host",
		"redis://:6379":            "host",
		"redis://h:abc":            "port",
		"redis://h:0":              "port",
		"redis://h:99999":          "port",
		"redis://u:%zz@h":          "user or password",
		"redis://u:a/b@h":          "user or password",
		"redis://u:a#b@h":          "user or password",
		"redis://h#x":              "#",
		"redis://h/1/2":            "database",
		"redis://h?a=%zz":          "parameters",
		"redis://h?pool_size=x":    "pool_size",
		"redis://h?dial_timeout=x": "dial_timeout",
		"rediss://h?ca_file=/none": "ca_file",
		"redis://h/x":              "database",
		"redis://h?no_such=1":      "no_such",
		"redis+sentinel://h":       "master_name",
		"redis+sentinel://h?master_name=m&addr=x":            "addr",
		"redis+sentinel://h?master_name=m&replica_only=true": "replicas",
		"redis+cluster://h?read_only=true":                   "replicas",
		"redis+cluster://h/1":                                "database 0",
	} {
		if _, err := Parse(url); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want %q", url, err, want)
		}
	}
}

// An unencoded password is split at its special characters, and neither part may be shown.
func TestErrorsShowNoPassword(t *testing.T) {
	target, err := Parse("redis+sentinel://host:1?master_name=m&password=12&xyz=qqq")
	if err == nil || strings.Contains(err.Error(), "xyz") || strings.Contains(err.Error(), "qqq") {
		t.Errorf("a parameter that may be a part of the password: %v, %v", target, err)
	}
	for _, password := range []string{"xyz%zzqqq", "xyz:qqq", "xyz,qqq", "xyz;qqq", "xyz&qqq", "12:xyz/qqq", "xyz/qqq", "xyz#qqq", "xyz?qqq", "12#xyz", "12/xyz", "12?xyz", "xyz qqq", "xyz@qqq", "xyz[qqq", "\x7fxyz"} {
		for _, scheme := range []string{"redis", "redis+sentinel", "redis+cluster", "nope"} {
			target, err := Parse(scheme + "://joe:" + password + "@host:1?master_name=m")
			said := ""
			if err != nil {
				said = err.Error()
			} else {
				said = target.String()
			}
			for _, part := range []string{"xyz", "qqq", "joe"} {
				if strings.Contains(said, part) {
					t.Errorf("%s with the password %q: %q shows it", scheme, password, said)
				}
			}
		}
	}
}
