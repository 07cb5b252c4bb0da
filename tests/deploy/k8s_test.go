package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/rejoin-io/rejoin/tests/manifests"
)

const k8s = root + "/k8s"

// An installation is a set of objects that are applied together.
type installation []manifests.Object

// A composition is the source of an installation: an overlay, or the base, with
// components.
type composition struct {
	folder     string
	components []string
}

var compositions = map[string]composition{
	"base":                             {"base", nil},
	"base with servicemonitor":         {"base", []string{"servicemonitor"}},
	"base with hpa-connections":        {"base", []string{"hpa-connections"}},
	"dev":                              {"overlays/dev", nil},
	"prod":                             {"overlays/prod", nil},
	"prod with servicemonitor and hpa": {"overlays/prod", []string{"servicemonitor", "hpa-connections"}},
}

// installations renders them all, once.
var installations = sync.OnceValues(func() (map[string]installation, error) {
	all := map[string]installation{}
	for name, c := range compositions {
		objects, err := manifests.Render(k8s, c.folder, c.components...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[name] = objects
	}
	return all, nil
})

// forEach runs a test with every installation.
func forEach(t *testing.T, test func(t *testing.T, in installation)) {
	t.Helper()
	all, err := installations()
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range all {
		t.Run(name, func(t *testing.T) { test(t, in) })
	}
}

// rendered returns one of the installations.
func rendered(t *testing.T, name string) installation {
	t.Helper()
	all, err := installations()
	if err != nil {
		t.Fatal(err)
	}
	return all[name]
}

// only returns the one object of a type that an installation has.
func only[T manifests.Object](t *testing.T, in installation) T {
	t.Helper()
	all := manifests.All[T](in)
	if len(all) != 1 {
		t.Fatalf("%d of %T, want one", len(all), *new(T))
	}
	return all[0]
}

// A workload creates pods.
type workload struct {
	manifests.Object
	selector *meta.LabelSelector
	pod      *core.PodTemplateSpec
}

func (in installation) workloads() (all []workload) {
	for _, d := range manifests.All[*apps.Deployment](in) {
		all = append(all, workload{d, d.Spec.Selector, &d.Spec.Template})
	}
	for _, s := range manifests.All[*apps.StatefulSet](in) {
		all = append(all, workload{s, s.Spec.Selector, &s.Spec.Template})
	}
	return all
}

// selected returns the workloads whose pods a selector means.
func (in installation) selected(t *testing.T, selector *meta.LabelSelector) (all []workload) {
	t.Helper()
	s, err := meta.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range in.workloads() {
		if s.Matches(labels.Set(w.pod.Labels)) {
			all = append(all, w)
		}
	}
	return all
}

// port returns the number of a container's port, by its name or as it is.
func (w workload) port(p intstr.IntOrString) (int, bool) {
	for _, c := range w.pod.Spec.Containers {
		for _, has := range c.Ports {
			if p.Type == intstr.String && has.Name == p.StrVal || p.Type == intstr.Int && has.ContainerPort == p.IntVal {
				return int(has.ContainerPort), true
			}
		}
	}
	return 0, false
}

// TestManifestsAreStrict: an unknown or duplicate field is an error, in source
// files and rendered objects.
func TestManifestsAreStrict(t *testing.T) {
	for _, wrong := range []string{
		"metadata: {name: a}\nspek: {}\n", "metadata: {name: a}\nspec: {}\nspec: {}\n", "metadata: {name: a, name: b}\n",
		"metadata: {name: a}\nspec: {ports: [{port: eighty}]}\n",
	} {
		text := "apiVersion: v1\nkind: Service\n" + wrong
		if _, err := manifests.Decode([]byte(text)); err == nil {
			t.Errorf("decoded:\n%s", text)
		}
		folder := t.TempDir()
		for file, content := range map[string]string{"kustomization.yaml": "resources: [object.yaml]\n", "object.yaml": text} {
			if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := manifests.Render(folder, "."); err == nil {
			t.Errorf("rendered:\n%s", text)
		}
	}
	if _, err := manifests.Decode([]byte("apiVersion: v9\nkind: Service\nmetadata: {name: a}\n")); err == nil {
		t.Error("a kind that does not exist was decoded")
	}
}

// TestObjectsAreNamed: each object exists once, in the installation's namespace,
// with the standard labels.
func TestObjectsAreNamed(t *testing.T) {
	forEach(t, func(t *testing.T, in installation) {
		namespace := only[*core.Namespace](t, in)
		seen := map[string]bool{}
		for _, o := range in {
			kind := o.GetObjectKind().GroupVersionKind().Kind
			id := kind + " " + o.GetName()
			if seen[id] {
				t.Errorf("duplicate %s", id)
			}
			seen[id] = true
			if o.GetNamespace() != namespace.Name && kind != "Namespace" && !strings.HasPrefix(t.Name(), "TestObjectsAreNamed/base") {
				t.Errorf("%s is in the namespace %q, want %q", id, o.GetNamespace(), namespace.Name)
			}
			standard := []string{"part-of", "managed-by"}
			if kind != "ConfigMap" && kind != "Secret" { // which are generated
				standard = append(standard, "name")
			}
			for _, label := range standard {
				if o.GetLabels()["app.kubernetes.io/"+label] == "" {
					t.Errorf("%s lacks the label app.kubernetes.io/%s", id, label)
				}
			}
		}
		if got := namespace.Labels["pod-security.kubernetes.io/enforce"]; got != "restricted" {
			t.Errorf("pod security %q", got)
		}
	})
	dev, prod := only[*core.Namespace](t, rendered(t, "dev")), only[*core.Namespace](t, rendered(t, "prod"))
	if dev.Name == prod.Name {
		t.Errorf("dev and prod are both in the namespace %s", dev.Name)
	}
}

// TestReferencesHold: selectors match, and named objects exist.
func TestReferencesHold(t *testing.T) {
	forEach(t, func(t *testing.T, in installation) {
		node := only[*apps.Deployment](t, in)
		for _, w := range in.workloads() {
			for _, label := range []string{"name", "component", "part-of"} {
				if w.pod.Labels["app.kubernetes.io/"+label] == "" {
					t.Errorf("the pods of %s lack the label app.kubernetes.io/%s", w.GetName(), label)
				}
			}
			if got := in.selected(t, w.selector); len(got) != 1 || got[0].GetName() != w.GetName() {
				t.Errorf("%s selects the pods of %v", w.GetName(), got)
			}
		}
		for _, s := range manifests.All[*core.Service](in) {
			chosen := in.selected(t, &meta.LabelSelector{MatchLabels: s.Spec.Selector})
			if len(chosen) != 1 || s.Spec.Type != "" && s.Spec.Type != core.ServiceTypeClusterIP || s.Spec.SessionAffinity == core.ServiceAffinityClientIP {
				t.Errorf("the Service %s is for %d workloads, of type %q with affinity %q", s.Name, len(chosen), s.Spec.Type, s.Spec.SessionAffinity)
				continue
			}
			for _, p := range s.Spec.Ports {
				if _, ok := chosen[0].port(p.TargetPort); !ok {
					t.Errorf("the Service %s: %s has no port %v", s.Name, chosen[0].GetName(), p.TargetPort)
				}
			}
		}
		budget := only[*policy.PodDisruptionBudget](t, in)
		if got := in.selected(t, budget.Spec.Selector); len(got) != 1 || got[0].GetName() != node.Name || *budget.Spec.MaxUnavailable != intstr.FromInt32(1) {
			t.Errorf("the budget is %+v", budget.Spec)
		}
		scaler := only[*autoscaling.HorizontalPodAutoscaler](t, in)
		if ref := scaler.Spec.ScaleTargetRef; ref.Kind != "Deployment" || ref.APIVersion != "apps/v1" || ref.Name != node.Name || node.Spec.Replicas != nil {
			t.Errorf("%+v is scaled, and the Deployment sets %v", ref, node.Spec.Replicas)
		}
		account := only[*core.ServiceAccount](t, in)
		if account.Name != node.Spec.Template.Spec.ServiceAccountName || *account.AutomountServiceAccountToken {
			t.Errorf("the ServiceAccount is %+v", account)
		}
		for _, i := range manifests.All[*networking.Ingress](in) {
			checkIngress(t, in, i)
		}
		for _, m := range manifests.All[*monitoring.ServiceMonitor](in) {
			checkMonitor(t, in, m)
		}
	})
}

// checkIngress: it leads to the public port only, and knows no affinity.
func checkIngress(t *testing.T, in installation, i *networking.Ingress) {
	t.Helper()
	for name := range i.Annotations {
		if regexp.MustCompile(`affinity|cookie|hash|sticky`).MatchString(name) {
			t.Errorf("the Ingress has the annotation %s", name)
		}
	}
	for _, rule := range i.Spec.Rules {
		if len(i.Spec.TLS) == 0 || !slices.Contains(i.Spec.TLS[0].Hosts, rule.Host) {
			t.Errorf("%s is served without TLS", rule.Host)
		}
		for _, path := range rule.HTTP.Paths {
			to := path.Backend.Service
			if !slices.ContainsFunc(manifests.All[*core.Service](in), func(s *core.Service) bool {
				return s.Name == to.Name && slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool {
					return p.Name == to.Port.Name && p.TargetPort == intstr.FromString("public")
				})
			}) {
				t.Errorf("the Ingress leads to %+v", to)
			}
		}
	}
}

// checkMonitor: it means the internal Service and no other.
func checkMonitor(t *testing.T, in installation, m *monitoring.ServiceMonitor) {
	t.Helper()
	selector, err := meta.LabelSelectorAsSelector(&m.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range manifests.All[*core.Service](in) {
		if selector.Matches(labels.Set(s.Labels)) {
			names = append(names, s.Name)
			if len(m.Spec.Endpoints) != 1 || s.Spec.Ports[0].Name != m.Spec.Endpoints[0].Port || s.Spec.Ports[0].TargetPort != intstr.FromString("internal") {
				t.Errorf("the ServiceMonitor scrapes %+v of %+v", m.Spec.Endpoints, s.Spec.Ports)
			}
		}
	}
	if len(names) != 1 {
		t.Errorf("the ServiceMonitor means the Services %v", names)
	}
}

// TestScaling: it grows fast and shrinks slowly, because clients that lose
// their node cost a recovery.
func TestScaling(t *testing.T) {
	forEach(t, func(t *testing.T, in installation) {
		spec := only[*autoscaling.HorizontalPodAutoscaler](t, in).Spec
		if *spec.MinReplicas < 2 || spec.MaxReplicas <= *spec.MinReplicas {
			t.Errorf("%d to %d nodes", *spec.MinReplicas, spec.MaxReplicas)
		}
		if down := spec.Behavior.ScaleDown; *down.StabilizationWindowSeconds < 300 || len(down.Policies) != 1 || down.Policies[0].Type != autoscaling.PodsScalingPolicy || down.Policies[0].Value != 1 {
			t.Errorf("it shrinks by %+v", down)
		}
		if cpu := spec.Metrics[0].Resource; cpu == nil || cpu.Name != core.ResourceCPU || *cpu.Target.AverageUtilization > 80 {
			t.Errorf("it does not scale by CPU, but by %+v", spec.Metrics)
		}
		byConnections := strings.Contains(t.Name(), "hpa")
		if want := map[bool]int{false: 1, true: 2}[byConnections]; len(spec.Metrics) != want {
			t.Fatalf("%d metrics, want %d", len(spec.Metrics), want)
		}
		if !byConnections {
			return
		}
		// The documented size of a node fits into its requests and limits.
		pods := spec.Metrics[1].Pods
		clients := pods.Target.AverageValue.Value()
		promised := only[*apps.Deployment](t, in).Spec.Template.Spec.Containers[0].Resources.Requests.Memory().Value()
		if each := measuredBytes(t); pods.Metric.Name != "rejoin_connections" || clients*each > promised || clients*each < promised/3 {
			t.Errorf("%d clients of %d bytes by %s in %d bytes", clients, each, pods.Metric.Name, promised)
		}
	})
}

// measuredBytes is the documented memory of an idle connection.
func measuredBytes(t *testing.T) int64 {
	t.Helper()
	var kib float64
	row := regexp.MustCompile(`an idle connection, with the kernel's part \| ([\d.]+) KiB`).FindStringSubmatch(text(t, "k8s/README.md"))
	if row == nil {
		t.Fatal("k8s/README.md lacks the memory of an idle connection")
	}
	if _, err := fmt.Sscan(row[1], &kib); err != nil {
		t.Fatal(err)
	}
	return int64(kib * 1024)
}

// text returns a file of the repository.
func text(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestNoSecrets: secrets in the repository are for trials, or placeholders.
func TestNoSecrets(t *testing.T) {
	form, err := manifests.Decode([]byte(text(t, "k8s/overlays/prod/secret.example.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(manifests.All[*core.Secret](rendered(t, "prod"))); n > 0 {
		t.Errorf("prod has %d Secrets", n)
	}
	harmless := regexp.MustCompile(`<[^>]+>|^for-a-try-|^redis://[a-z-]+:\d+$`)
	check := func(name, key, value string) {
		if !harmless.MatchString(value) {
			t.Errorf("the Secret %s has a value for %s that looks real", name, key)
		}
	}
	secrets := manifests.All[*core.Secret](append(rendered(t, "dev"), form...))
	if len(secrets) != 2 {
		t.Errorf("%d Secrets", len(secrets))
	}
	for _, s := range secrets {
		for key, value := range s.Data {
			check(s.Name, key, string(value))
		}
		for key, value := range s.StringData {
			check(s.Name, key, value)
		}
	}
	// The template has the variables that the nodes need.
	asked := map[string]bool{}
	for _, v := range only[*apps.Deployment](t, rendered(t, "prod")).Spec.Template.Spec.Containers[0].Env {
		if v.ValueFrom != nil && v.ValueFrom.SecretKeyRef != nil {
			asked[v.ValueFrom.SecretKeyRef.Key] = true
			if _, ok := secrets[1].StringData[v.ValueFrom.SecretKeyRef.Key]; !ok || v.ValueFrom.SecretKeyRef.Name != secrets[1].Name {
				t.Errorf("the form lacks %s", v.Name)
			}
		}
	}
	if len(asked) != len(secrets[1].StringData) {
		t.Errorf("the nodes ask for %v, the form has %d values", asked, len(secrets[1].StringData))
	}
}
