// Package deploy tests the deployment files statically. `make compose-test`
// runs them.
package deploy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"go.uber.org/goleak"
)

const root = "../.."

// nodeBinary is the node, as users run it.
var nodeBinary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "rejoin-deploy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	nodeBinary = filepath.Join(dir, "rejoin")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", nodeBinary, "./cmd/node")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the node: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// node returns the node's output when it runs with an argument and only the
// given environment.
func node(t *testing.T, argument string, environment ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), nodeBinary, argument)
	cmd.Env = environment
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return string(out)
}

// load reads a compose file as `docker compose` does: against the schema, in
// which a name that does not exist is an error.
func load(ctx context.Context, content []byte, environment types.Mapping) (*types.Project, error) {
	return loader.LoadWithContext(ctx, types.ConfigDetails{
		WorkingDir:  root,
		ConfigFiles: []types.ConfigFile{{Filename: "docker-compose.yml", Content: content}},
		Environment: environment,
	}, func(o *loader.Options) { o.SetProjectName("rejoin", true) })
}

// composed returns our compose file and its decoded form.
func composed(t *testing.T, environment types.Mapping) ([]byte, *types.Project) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := load(t.Context(), content, environment)
	if err != nil {
		t.Fatal(err)
	}
	return content, project
}

func TestComposeFile(t *testing.T) {
	content, project := composed(t, nil)
	for _, wrong := range []string{"services:\n  node4: {imago: rejoin}\n", "service: {}\n"} {
		content := append(slices.Clone(content), "\n---\n"+wrong...)
		if _, err := load(t.Context(), content, nil); err == nil {
			t.Errorf("loaded in spite of %q", wrong)
		}
	}

	for _, name := range []string{"node1", "node2", "node3"} {
		node, err := project.GetService(name)
		if err != nil {
			t.Fatal(err)
		}
		if node.Build == nil || len(node.Ports) > 0 {
			t.Errorf("%s: build %v, ports %v; want our own image, reached through the balancer only", name, node.Build, node.Ports)
		}
		if grace := node.StopGracePeriod; grace == nil || time.Duration(*grace) < 30*time.Second {
			t.Errorf("%s: has %v to stop, too little to drain", name, grace)
		}
	}
	for name, service := range project.Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s can be reached from outside", name, port.Published)
			}
		}
	}
	if ports := project.Services["balancer"].Ports; len(ports) != 2 || ports[0].Published != "3000" || ports[1].Published != "3001" {
		t.Errorf("the balancer's ports are %v, want 3000 and 3001", ports)
	}

	redis := strings.Join(project.Services["redis"].Command, " ")
	for _, setting := range []string{"--appendonly yes", "--maxmemory-policy noeviction", "--client-output-buffer-limit pubsub"} {
		if !strings.Contains(redis, setting) {
			t.Errorf("Redis runs without %s", setting)
		}
	}
}

func TestShellSetsTheSecrets(t *testing.T) {
	for _, name := range []string{"REJOIN_CLUSTER_SECRET", "REJOIN_JWT_SECRET", "REJOIN_API_KEYS"} {
		_, project := composed(t, types.Mapping{name: "from the shell"})
		if secret := project.Services["node1"].Environment[name]; secret == nil || *secret != "from the shell" {
			t.Errorf("%s is %v", name, secret)
		}
	}
}

// The node itself checks whether it can start with the file's settings.
func TestNodesAreConfigured(t *testing.T) {
	_, project := composed(t, nil)
	for _, name := range []string{"node1", "node2", "node3"} {
		if said := node(t, "-check", project.Services[name].Environment.ToMapping().Values()...); said != "ok\n" {
			t.Errorf("%s: %s", name, said)
		}
	}
}

// TestImagesArePinned: a version can be published again, a digest cannot.
func TestImagesArePinned(t *testing.T) {
	pinned := regexp.MustCompile(`:\d+\.\d+\.\d+(-[a-z.0-9]+)?@sha256:[0-9a-f]{64}$`)
	_, project := composed(t, nil)
	redis := project.Services["redis"].Image
	images := []string{redis, project.Services["balancer"].Image}
	bases := regexp.MustCompile(`(?m)^ARG \w+_IMAGE=(\S+)$`).FindAllStringSubmatch(text(t, "Dockerfile"), -1)
	for _, base := range bases {
		images = append(images, base[1])
	}
	if len(bases) != 2 {
		t.Errorf("found the bases %v, want two", bases)
	}
	for _, image := range images {
		if !pinned.MatchString(image) {
			t.Errorf("%s is not pinned to a version and a digest", image)
		}
	}
	if dev := text(t, "k8s/overlays/dev/redis.yaml"); !strings.Contains(dev, "image: "+redis+"\n") {
		t.Errorf("the dev overlay does not run %s", redis)
	}
}

// TestWorkflow: the workflow can read the repository and nothing else, runs
// pinned actions, and leaves them no credentials.
func TestWorkflow(t *testing.T) {
	workflow := text(t, ".github/workflows/ci.yml")
	if !strings.Contains(workflow, "\npermissions:\n  contents: read\n") || strings.Count(workflow, "permissions:") != 1 || strings.Contains(workflow, "write") {
		t.Error("the permissions are not contents: read alone")
	}
	uses := regexp.MustCompile(`(?m)^ *-? *uses: (.*)$`).FindAllStringSubmatch(workflow, -1)
	for _, m := range uses {
		if !regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`).MatchString(m[1]) {
			t.Errorf("%s is not pinned to a commit, with its version", m[1])
		}
	}
	if checkouts := strings.Count(workflow, "actions/checkout@"); checkouts == 0 || checkouts != strings.Count(workflow, "persist-credentials: false") {
		t.Error("a checkout leaves its credentials behind")
	}
	_, vuln, _ := strings.Cut(workflow, "  vulnerabilities:\n")
	if !strings.Contains(vuln, "run: make vuln\n") {
		t.Error("known vulnerabilities are not looked for")
	}
	image := regexp.MustCompile(`(?m)^ARG GO_IMAGE=golang:([\d.]+)@`).FindStringSubmatch(text(t, "Dockerfile"))
	if image == nil || !strings.Contains(vuln, "go-version: "+image[1]+" ") {
		t.Errorf("vulnerabilities are not looked for with the image's Go, %v", image)
	}
}

func TestBalancer(t *testing.T) {
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		haproxy = "/usr/sbin/haproxy" // which is on root's path only
	}
	config := filepath.Join(root, "deploy", "haproxy.cfg")
	out, err := exec.CommandContext(t.Context(), haproxy, "-c", "-f", config).CombinedOutput()
	if err != nil || strings.Contains(string(out), "WARNING") {
		t.Errorf("%v (make setup installs HAProxy)\n%s", err, out)
	}
	content, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if affinity := regexp.MustCompile(`(?m)^\s*(cookie|stick|hash-type|balance (source|uri|hdr|hash)).*`).FindString(string(content)); affinity != "" {
		t.Errorf("affinity: %s", affinity)
	}
}
