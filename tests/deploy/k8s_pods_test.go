package deploy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/rejoin-io/rejoin/tests/manifests"
)

// A podRule holds for all pods. After broken has changed a pod it does not.
type podRule struct {
	name   string
	holds  func(*core.PodSpec) bool
	broken func(*core.PodSpec)
}

// A containerRule is one of every container.
type containerRule struct {
	name   string
	holds  func(*core.Container) bool
	broken func(*core.Container)
}

func is[T comparable](p *T, want T) bool { return p != nil && *p == want }

var podRules = []podRule{
	{"no variables for Services", func(p *core.PodSpec) bool { return is(p.EnableServiceLinks, false) }, func(p *core.PodSpec) { p.EnableServiceLinks = nil }},
	{"no token for the API server", func(p *core.PodSpec) bool { return is(p.AutomountServiceAccountToken, false) }, func(p *core.PodSpec) { p.AutomountServiceAccountToken = nil }},
	{"not root", func(p *core.PodSpec) bool { return is(p.SecurityContext.RunAsNonRoot, true) }, func(p *core.PodSpec) { p.SecurityContext.RunAsNonRoot = nil }},
	{"a user", func(p *core.PodSpec) bool {
		return p.SecurityContext.RunAsUser != nil && *p.SecurityContext.RunAsUser > 0
	}, func(p *core.PodSpec) { *p.SecurityContext.RunAsUser = 0 }},
	{"seccomp", func(p *core.PodSpec) bool {
		return p.SecurityContext.SeccompProfile != nil && p.SecurityContext.SeccompProfile.Type == core.SeccompProfileTypeRuntimeDefault
	}, func(p *core.PodSpec) { p.SecurityContext.SeccompProfile = nil }},
	{"nothing of the host", func(p *core.PodSpec) bool {
		return !p.HostNetwork && !p.HostPID && !p.HostIPC && !slices.ContainsFunc(p.Volumes, func(v core.Volume) bool { return v.HostPath != nil })
	}, func(p *core.PodSpec) {
		p.Volumes = append(p.Volumes, core.Volume{VolumeSource: core.VolumeSource{HostPath: &core.HostPathVolumeSource{}}})
	}},
}

var pinned = regexp.MustCompile(`:\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?$`)

var containerRules = []containerRule{
	{"a read-only root", func(c *core.Container) bool { return is(c.SecurityContext.ReadOnlyRootFilesystem, true) }, func(c *core.Container) { c.SecurityContext.ReadOnlyRootFilesystem = nil }},
	{"no way to more rights", func(c *core.Container) bool { return is(c.SecurityContext.AllowPrivilegeEscalation, false) }, func(c *core.Container) { c.SecurityContext.AllowPrivilegeEscalation = nil }},
	{"not privileged", func(c *core.Container) bool { return c.SecurityContext.Privileged == nil }, func(c *core.Container) { c.SecurityContext.Privileged = new(bool) }},
	{"no capabilities", func(c *core.Container) bool {
		can := c.SecurityContext.Capabilities
		return can != nil && slices.Equal(can.Drop, []core.Capability{"ALL"}) && len(can.Add) == 0
	}, func(c *core.Container) { c.SecurityContext.Capabilities.Add = []core.Capability{"NET_ADMIN"} }},
	{"no user of its own", func(c *core.Container) bool {
		return c.SecurityContext.RunAsUser == nil && c.SecurityContext.RunAsNonRoot == nil
	}, func(c *core.Container) { c.SecurityContext.RunAsUser = new(int64) }},
	{"requests", func(c *core.Container) bool {
		return !c.Resources.Requests.Cpu().IsZero() && !c.Resources.Requests.Memory().IsZero()
	}, func(c *core.Container) { delete(c.Resources.Requests, core.ResourceMemory) }},
	// GOMAXPROCS follows from that of the CPU.
	{"limits", func(c *core.Container) bool {
		return c.Resources.Limits.Cpu().Cmp(*c.Resources.Requests.Cpu()) >= 0 && c.Resources.Limits.Memory().Cmp(*c.Resources.Requests.Memory()) >= 0
	}, func(c *core.Container) { c.Resources.Limits[core.ResourceCPU] = resource.MustParse("1m") }},
	{"all three probes", func(c *core.Container) bool {
		return c.StartupProbe != nil && c.LivenessProbe != nil && c.ReadinessProbe != nil
	}, func(c *core.Container) { c.StartupProbe = nil }},
	{"a pinned image", func(c *core.Container) bool {
		return pinned.MatchString(c.Image) && c.ImagePullPolicy == core.PullIfNotPresent
	}, func(c *core.Container) { c.Image = "rejoin:latest" }},
	{"no port of the host", func(c *core.Container) bool {
		return !slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool { return p.HostPort != 0 })
	}, func(c *core.Container) { c.Ports[0].HostPort = 80 }},
}

// TestPods: the rules hold for every pod, and detect violations.
func TestPods(t *testing.T) {
	forEach(t, func(t *testing.T, in installation) {
		for _, w := range in.workloads() {
			for _, rule := range podRules {
				if !rule.holds(&w.pod.Spec) {
					t.Errorf("%s: not held: %s", w.GetName(), rule.name)
				}
				pod := w.pod.Spec.DeepCopy()
				if rule.broken(pod); rule.holds(pod) {
					t.Errorf("%s: held however it is broken: %s", w.GetName(), rule.name)
				}
			}
			for _, c := range append(slices.Clone(w.pod.Spec.InitContainers), w.pod.Spec.Containers...) {
				for _, rule := range containerRules {
					if !rule.holds(&c) {
						t.Errorf("%s: not held: %s", w.GetName(), rule.name)
					}
					container := c.DeepCopy()
					if rule.broken(container); rule.holds(container) {
						t.Errorf("%s: held however it is broken: %s", w.GetName(), rule.name)
					}
				}
			}
		}
	})
}

// values returns the environment of the nodes of an installation, with the
// defaults that rejoin -h lists.
func values(t *testing.T, in installation) map[string]string {
	t.Helper()
	all := defaults(t)
	environment, err := manifests.Environment(in, only[*apps.Deployment](t, in).Spec.Template.Spec, "10.1.2.3", placeholders)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(all, environment)
	return all
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func seconds[T int32 | int64](n T) time.Duration { return time.Duration(n) * time.Second }

// TestNodesLeaveInTime: the grace period is the time that a node takes to drain and
// to stop, and Kubernetes notices that it is not ready before it refuses new
// clients.
func TestNodesLeaveInTime(t *testing.T) {
	forEach(t, func(t *testing.T, in installation) {
		node := only[*apps.Deployment](t, in)
		pod, set := node.Spec.Template.Spec, values(t, in)
		delay, budget := duration(t, set["REJOIN_DRAIN_DELAY"]), duration(t, set["REJOIN_DRAIN_BUDGET"])
		if budget < 5*time.Second {
			t.Errorf("a drain takes 5s at least, and the budget is %v", budget)
		}
		if grace, want := seconds(*pod.TerminationGracePeriodSeconds), delay+budget+10*time.Second; grace != want {
			t.Errorf("the grace period is %v, want %v", grace, want)
		}
		ready := pod.Containers[0].ReadinessProbe
		if notices := seconds(ready.PeriodSeconds)*time.Duration(ready.FailureThreshold) + seconds(ready.TimeoutSeconds); notices > delay {
			t.Errorf("it takes %v until a node is known not to be ready, and it serves for %v", notices, delay)
		}
		rolling := node.Spec.Strategy.RollingUpdate
		if rolling.MaxUnavailable.IntValue() != 0 || rolling.MaxSurge.IntValue() != 1 || node.Spec.MinReadySeconds == 0 {
			t.Errorf("a rollout is %v, and nodes need be ready for %d seconds", rolling, node.Spec.MinReadySeconds)
		}
	})
}

// TestPortsAndMemoryAgree: ports, addresses, probes and the memory that Go may take
// agree with one another.
func TestPortsAndMemoryAgree(t *testing.T) {
	forEach(t, func(t *testing.T, in installation) {
		node := only[*apps.Deployment](t, in)
		pod, set := node.Spec.Template.Spec, values(t, in)
		c := pod.Containers[0]
		ports := map[string]int32{}
		for _, p := range c.Ports {
			ports[p.Name] = p.ContainerPort
		}
		for name, want := range map[string]string{
			"REJOIN_ADDR":           fmt.Sprint(":", ports["public"]),
			"REJOIN_INTERNAL_ADDR":  fmt.Sprint(":", ports["internal"]),
			"REJOIN_ADVERTISE_ADDR": fmt.Sprint("[10.1.2.3]:", ports["internal"]),
		} {
			if set[name] != want {
				t.Errorf("%s is %q, want %q", name, set[name], want)
			}
		}
		for probe, want := range map[*core.Probe]string{c.StartupProbe: "/healthz", c.LivenessProbe: "/healthz", c.ReadinessProbe: "/readyz"} {
			if get := probe.HTTPGet; get == nil || get.Path != want || get.Port.StrVal != "internal" {
				t.Errorf("a probe is %+v, want %s of the internal port", get, want)
			}
		}
		if user := fmt.Sprintf("USER %d:%d\n", *pod.SecurityContext.RunAsUser, *pod.SecurityContext.RunAsGroup); !strings.Contains(text(t, "Dockerfile"), user) {
			t.Errorf("the image's user is not %s", user)
		}
		var mib int64
		if _, err := fmt.Sscanf(set["GOMEMLIMIT"], "%dMiB", &mib); err != nil {
			t.Fatalf("GOMEMLIMIT=%s: %v", set["GOMEMLIMIT"], err)
		}
		limit := c.Resources.Limits.Memory().Value()
		if share := float64(mib<<20) / float64(limit); share < 0.8 || share > 0.95 {
			t.Errorf("got GOMEMLIMIT at %.2f of the memory limit, want 0.80 to 0.95", share)
		}
		if set["GOMAXPROCS"] != "" {
			t.Error("GOMAXPROCS is set, which follows from the CPU limit")
		}
	})
}

// TestOneImage: only the base names the image: that of this version.
func TestOneImage(t *testing.T) {
	version := strings.Fields(node(t, "-version"))[1]
	forEach(t, func(t *testing.T, in installation) {
		if image := only[*apps.Deployment](t, in).Spec.Template.Spec.Containers[0].Image; image != "rejoin:"+version {
			t.Errorf("the image is %s, and the version %s", image, version)
		}
	})
}

// TestSpread: in production the loss of a machine or a zone is that of some nodes.
func TestSpread(t *testing.T) {
	in := rendered(t, "prod")
	d := only[*apps.Deployment](t, in)
	var over []string
	for _, c := range d.Spec.Template.Spec.TopologySpreadConstraints {
		over = append(over, c.TopologyKey)
		if got := in.selected(t, c.LabelSelector); len(got) != 1 || got[0].GetName() != d.Name || c.MaxSkew != 1 {
			t.Errorf("%+v", c)
		}
	}
	if slices.Sort(over); !slices.Equal(over, []string{"kubernetes.io/hostname", "topology.kubernetes.io/zone"}) {
		t.Errorf("nodes are spread over %v", over)
	}
}
