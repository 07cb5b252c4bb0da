package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestThirdParty: THIRD_PARTY.md names every module that is in the node's binary, and no
// other module.
func TestThirdParty(t *testing.T) {
	root := filepath.Join("..", "..")
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./cmd/node")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var linked []string
	for _, path := range strings.Fields(string(out)) {
		linked = append(linked, majorVersion.ReplaceAllString(path, ""))
	}
	text, err := os.ReadFile(filepath.Join(root, "THIRD_PARTY.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## In the binary")
	section, _, _ = strings.Cut(section, "\n## ")
	var named []string
	for _, path := range modulePath.FindAllString(section, -1) {
		named = append(named, majorVersion.ReplaceAllString(path, ""))
	}
	slices.Sort(linked)
	slices.Sort(named)
	if linked = slices.Compact(linked); !slices.Equal(linked, named) {
		t.Errorf("in the binary:\n%q\nnamed:\n%q", linked, named)
	}
}

var (
	modulePath   = regexp.MustCompile(`(github\.com|golang\.org|go\.uber\.org|google\.golang\.org)/[A-Za-z0-9_./-]+`)
	majorVersion = regexp.MustCompile(`/v[0-9]+$`)
)
