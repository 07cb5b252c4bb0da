package deploy

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/tests/manifests"
)

// placeholders stand for the values that an operator sets in the Secret.
var placeholders = map[string]string{
	"REJOIN_CLUSTER_SECRET": "a placeholder for a secret",
	"REJOIN_REDIS_URL":      "rediss://rejoin:placeholder@redis.example.com:6379",
	"REJOIN_JWT_SECRET":     "a placeholder for a secret that signs tokens",
	"REJOIN_API_KEYS":       "a-placeholder-for-a-key",
}

// defaults returns the variables that rejoin -h lists.
func defaults(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^  (REJOIN_\w+) \(default: (.*)\)$`).FindAllStringSubmatch(node(t, "-h"), -1) {
		if all[row[1]] = row[2]; row[2] == "none" {
			all[row[1]] = ""
		}
	}
	if len(all) < 20 {
		t.Fatalf("rejoin -h lists only %v", all)
	}
	return all
}

func pairs(environment map[string]string) (all []string) {
	for name, value := range environment {
		all = append(all, name+"="+value)
	}
	return all
}

// TestPodsAreConfigured: a node accepts its pod's settings, whatever IP the pod
// has.
func TestPodsAreConfigured(t *testing.T) {
	known := defaults(t)
	forEach(t, func(t *testing.T, in installation) {
		if strings.HasPrefix(t.Name(), "TestPodsAreConfigured/base") {
			t.Log("the base does not configure authentication")
			return
		}
		for _, ip := range []string{"10.1.2.3", "fd00::1:2"} {
			environment, err := manifests.Environment(in, only[*apps.Deployment](t, in).Spec.Template.Spec, ip, placeholders)
			if err != nil {
				t.Fatal(err)
			}
			if said := node(t, "-check", pairs(environment)...); said != "ok\n" {
				t.Errorf("with the address %s: %s", ip, said)
			}
			for name := range environment {
				if _, ok := known[name]; strings.HasPrefix(name, "REJOIN_") && !ok {
					t.Errorf("rejoin -h does not know %s", name)
				}
			}
		}
		if _, err := manifests.Environment(in, only[*apps.Deployment](t, in).Spec.Template.Spec, "10.1.2.3", nil); err == nil && strings.Contains(t.Name(), "prod") {
			t.Error("a pod starts without its Secret")
		}
	})
}

// TestProdRequiresTokens: if neither the Secret nor a setting has a key for
// tokens, nodes do not start.
func TestProdRequiresTokens(t *testing.T) {
	secrets := maps.Clone(placeholders)
	delete(secrets, "REJOIN_JWT_SECRET")
	in := rendered(t, "prod")
	environment, err := manifests.Environment(in, only[*apps.Deployment](t, in).Spec.Template.Spec, "10.1.2.3", secrets)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nodeBinary, "-check")
	cmd.Env = pairs(environment)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "REJOIN_ADDR") || !strings.Contains(string(out), "REJOIN_JWT_SECRET") {
		t.Errorf("%v: %s", err, out)
	}
}

// A kubelet sends the probes of a pod to a node.
type kubelet struct {
	*testing.T
	pod              core.PodSpec
	public, internal string // addresses
}

// startPod starts the container of a pod of this installation, on addresses of this
// machine and with some variables otherwise.
func startPod(t *testing.T, in installation, changed map[string]string) *kubelet {
	t.Helper()
	k := &kubelet{
		T: t, pod: only[*apps.Deployment](t, in).Spec.Template.Spec,
		public: "127.0.0.1:" + redistest.FreePort(t), internal: "127.0.0.1:" + redistest.FreePort(t),
	}
	environment, err := manifests.Environment(in, k.pod, "127.0.0.1", placeholders)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(environment, map[string]string{
		"REJOIN_ADDR": k.public, "REJOIN_INTERNAL_ADDR": k.internal, "REJOIN_ADVERTISE_ADDR": k.internal,
		"REJOIN_DRAIN_DELAY": "0s", "REJOIN_DRAIN_BUDGET": "0s",
	})
	maps.Copy(environment, changed)
	cmd := exec.Command(nodeBinary)
	cmd.Env = pairs(environment)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		late := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer late.Stop()
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			t.Errorf("the node does not end well: %v\n%s", err, &log)
		}
	})
	return k
}

// asks returns the answer to a probe.
func (k *kubelet) asks(p *core.Probe) (int, error) {
	status, _, err := k.get(k.internal, p.HTTPGet.Path)
	return status, err
}

func (k *kubelet) get(addr, path string) (int, string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + addr + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// eventually asks a probe until it has the answer.
func (k *kubelet) eventually(p *core.Probe, want int) {
	k.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for late := time.After(20 * time.Second); ; {
		status, err := k.asks(p)
		if status == want {
			return
		}
		select {
		case <-again.C:
		case <-late:
			k.Fatalf("%s: %d, %v, want %d", p.HTTPGet.Path, status, err, want)
		}
	}
}

// TestNodesAreLiveWithoutRedis: a node without its Redis starts, is live, and is not
// ready.
func TestNodesAreLiveWithoutRedis(t *testing.T) {
	k := startPod(t, rendered(t, "dev"), map[string]string{"REJOIN_REDIS_URL": "redis://127.0.0.1:" + redistest.FreePort(t)})
	c := k.pod.Containers[0]
	k.eventually(c.StartupProbe, http.StatusOK)
	for range c.LivenessProbe.FailureThreshold {
		for probe, want := range map[*core.Probe]int{c.LivenessProbe: http.StatusOK, c.ReadinessProbe: http.StatusServiceUnavailable} {
			if status, err := k.asks(probe); status != want {
				t.Errorf("%s: %d, %v, want %d", probe.HTTPGet.Path, status, err, want)
			}
		}
	}
}

// redisArguments returns the arguments of redis-server in the dev overlay, and the
// container's memory limit.
func redisArguments(t *testing.T) (args []string, limit int64) {
	t.Helper()
	c := only[*apps.StatefulSet](t, rendered(t, "dev")).Spec.Template.Spec.Containers[0]
	if c.Args[0] != "redis-server" {
		t.Fatalf("the container runs %q", c.Args)
	}
	return c.Args[1:], c.Resources.Limits.Memory().Value()
}

// TestRedisOfDev: a Redis with the arguments of the overlay has the settings that
// docs/redis.md requires, and a node joins it; the paths that the Ingress and
// Prometheus use exist.
func TestRedisOfDev(t *testing.T) {
	args, limit := redisArguments(t)
	var config []string // the same as lines of redis.conf
	for _, a := range args {
		if name, ok := strings.CutPrefix(a, "--"); ok {
			config = append(config, name)
			continue
		}
		if a == "" {
			a = `""`
		}
		config[len(config)-1] += " " + a
	}
	server := redistest.Start(t, config...)
	settings, err := server.Client().ConfigGet(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": "", "timeout": "0", "protected-mode": "no",
	} {
		if settings[name] != want {
			t.Errorf("%s is %q, want %q", name, settings[name], want)
		}
		if name != "protected-mode" && !strings.Contains(text(t, "docs/redis.md"), "| `"+name) {
			t.Errorf("docs/redis.md does not name %s", name)
		}
	}
	if !strings.Contains(settings["client-output-buffer-limit"], "pubsub 268435456 67108864 60") {
		t.Errorf("client-output-buffer-limit is %q", settings["client-output-buffer-limit"])
	}
	most, err := resource.ParseQuantity(settings["maxmemory"])
	if err != nil || most.Value() == 0 || most.Value() > limit/2 { // the other half is for rewriting the append-only file
		t.Errorf("maxmemory is %v of a limit of %d, %v", most, limit, err)
	}

	in := rendered(t, "prod with servicemonitor and hpa")
	k := startPod(t, in, map[string]string{"REJOIN_REDIS_URL": server.URL()})
	k.eventually(k.pod.Containers[0].ReadinessProbe, http.StatusOK)
	scraped := only[*monitoring.ServiceMonitor](t, in).Spec.Endpoints[0].Path
	if _, metrics, err := k.get(k.internal, scraped); err != nil || !strings.Contains(metrics, "\nrejoin_connections{") {
		t.Errorf("%s has no rejoin_connections, %v:\n%s", scraped, err, metrics)
	}
	way := only[*networking.Ingress](t, in).Spec.Rules[0].HTTP.Paths[0].Path
	if status, body, err := k.get(k.public, path.Clean(way)+"/?EIO=4&transport=polling"); status != http.StatusOK || !strings.Contains(body, "pingInterval") {
		t.Errorf("%s: %d %s, %v", way, status, body, err)
	}
	// The body that a node takes gets through the Ingress.
	var largest int64
	fmt.Sscan(defaults(t)["REJOIN_MAX_PAYLOAD"], &largest)
	if body := only[*networking.Ingress](t, in).Annotations["nginx.ingress.kubernetes.io/proxy-body-size"]; body != "1m" || largest == 0 || largest > 1<<20 {
		t.Errorf("the Ingress accepts %s, the node %d", body, largest)
	}
}
