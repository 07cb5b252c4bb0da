package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"
)

const contractFile = "../../internal/api/openapi.yaml"

// TestAPIContractIsStrict: parsers that follow YAML 1.1, as most generators do, read the contract, and
// a linter finds nothing in it.
func TestAPIContractIsStrict(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(contractFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, new(map[string]any)); err != nil {
		t.Error(err)
	}
	if said := nodeJS(t, "contract/lint.mjs", contractFile); said != "" {
		t.Errorf("the linter says:\n%s", said)
	}
}

// TestGeneratedAPIClient: a client that is generated from the contract compiles and works. Fields
// with a default value are optional in it.
func TestGeneratedAPIClient(t *testing.T) {
	t.Parallel()
	n := startNode(t, withAPI)
	dir := t.TempDir()
	modules, err := filepath.Abs("../node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("contract/backend.ts")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"backend.ts": string(program), "package.json": `{"type": "module"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nodeJS(t, "../node_modules/openapi-typescript/bin/cli.js", contractFile, "-o", filepath.Join(dir, "api.ts"))
	nodeJS(t, "../node_modules/typescript/bin/tsc", "--strict", "--target", "es2022", "--module", "nodenext",
		"--skipLibCheck", "--lib", "es2022,dom", filepath.Join(dir, "backend.ts"))
	got := nodeJS(t, filepath.Join(dir, "backend.js"), "http://"+n.internal+"/api/v1", apiKey)
	want := `{"offset":true,"statuses":[200],"answers":0,"written":[204,204,204],"read":[0,0,0],"events":["news"],"code":"reserved_event"}`
	if strings.TrimSpace(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// nodeJS runs a program, and returns what it prints.
func nodeJS(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	command := exec.CommandContext(ctx, "node", args...)
	command.Env = append(os.Environ(), "REDOCLY_TELEMETRY=off")
	var errs strings.Builder
	command.Stderr = &errs
	printed, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", args[0], err, printed, errs.String())
	}
	return string(printed)
}
