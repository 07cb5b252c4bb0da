package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestLimitsTable: each limit in docs/security.md has all columns, its metric and its
// variable exist with that default, and no label of rejoin_limited_total is missing there.
func TestLimitsTable(t *testing.T) {
	_, section, _ := strings.Cut(read(t, "security.md"), "\n## Limits\n")
	section, _, _ = strings.Cut(section, "\n## ")
	settings := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(REJOIN_\\w+)` \\| `?([^`|]*)`? \\|").FindAllStringSubmatch(read(t, "configuration.md"), -1) {
		settings[m[1]] = m[2]
	}
	labels, metrics := make(map[string]bool), make(map[string]bool)
	for _, from := range []struct {
		files, pattern string
		into           map[string]bool
	}{
		{"internal/limit/limit.go", `= "(\w+)"`, labels},
		{"pkg/socketio/limited.go", `= "(\w+)"`, labels},
		{"internal/metrics/limits.go", `refused\["(\w+)"\]`, labels},
		{"cmd/node/metrics.go", `refused\["(\w+)"\]`, labels},
		{"internal/*/*.go", `\b(?:describe|counts?|gauges?|histogram)\("(\w+)"`, metrics},
		{"internal/*/metrics.go", `"rejoin_(\w+)"`, metrics},
		{"cmd/node/log.go", `Name: +"rejoin_(\w+)"`, metrics},
	} {
		files, err := filepath.Glob("../../" + from.files)
		if err != nil || len(files) == 0 {
			t.Fatal(from.files, err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(from.pattern).FindAllStringSubmatch(string(source), -1) {
				from.into[m[1]] = true
			}
		}
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	rows, named := 0, make(map[string]bool)
	for _, line := range strings.Split(section, "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| limit ") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 5 {
			t.Errorf("%d columns: %s", len(cells), line)
			continue
		}
		for i, cell := range cells {
			if strings.TrimSpace(cell) == "" {
				t.Errorf("column %d is empty: %s", i+1, line)
			}
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[0], -1) {
			if def, ok := settings[m[1]]; !strings.HasPrefix(m[1], "REJOIN_") {
				continue
			} else if !ok {
				t.Errorf("there is no setting %s", m[1])
			} else if def != "0" && !strings.Contains(strings.NewReplacer(",", "", " ", "").Replace(cells[1]), def) {
				t.Errorf("%s is %s by default, and not %s", m[1], def, cells[1])
			}
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[3], -1) {
			name, isMetric := strings.CutPrefix(m[1], "rejoin_")
			name, _, _ = strings.Cut(name, "{")
			if isMetric && !metrics[name] || !isMetric && !labels[m[1]] {
				t.Errorf("there is no metric or limit %s", m[1])
			}
			named[m[1]] = true
		}
	}
	for label := range labels {
		if !named[label] {
			t.Errorf("the limit %s is not in the table", label)
		}
	}
	if rows < 30 {
		t.Errorf("got %d rows, want at least 30", rows)
	}
}
