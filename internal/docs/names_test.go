package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// A row's last column names tests: [TestX](file), or [TestX: part](file).
	namedTest  = regexp.MustCompile(`\[(Test\w+)(?:: ([^\]]+))?\]\(([^)]+)\)`)
	tableRow   = regexp.MustCompile(`(?m)^\|.*\| ([^|]+) \|$`)
	plainNames = regexp.MustCompile("`(Test\\w+)`")
)

// TestNamedTestsExist: each row of the tables of guarantees names tests, and the named
// files contain them and the named parts.
func TestNamedTestsExist(t *testing.T) {
	rows := 0
	for _, row := range tableRow.FindAllStringSubmatch(read(t, "guarantees.md"), -1) {
		if row[1] == "tests" || strings.HasPrefix(row[1], "---") {
			continue
		}
		rows++
		names := namedTest.FindAllStringSubmatch(row[1], -1)
		if len(names) == 0 {
			t.Errorf("no test: %s", row[0])
		}
		for _, m := range names {
			source, err := os.ReadFile(filepath.Join("../../docs", m[3]))
			if err != nil {
				t.Error(err)
			} else if !strings.Contains(string(source), "\nfunc "+m[1]+"(") {
				t.Errorf("%s has no %s", m[3], m[1])
			} else if m[2] != "" && !strings.Contains(string(source), `"`+m[2]) {
				t.Errorf("%s has no %q", m[3], m[2])
			}
		}
	}
	if rows < 30 {
		t.Errorf("got %d rows, want at least 30", rows)
	}
}

// TestOtherNamesExist: tests that other documents name exist as well.
func TestOtherNamesExist(t *testing.T) {
	known := make(map[string]bool)
	for _, source := range sources(t, "_test.go") {
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(source, -1) {
			known[m[1]] = true
		}
	}
	for file, text := range documents(t) {
		for _, m := range plainNames.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s names %s, which does not exist", file, m[1])
			}
		}
	}
}

// documents returns the texts of the documents, by file.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/decisions/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all[file] = string(text)
		}
	}
	return all
}

// sources returns the contents of all files with a suffix.
func sources(t *testing.T, suffix string) (all []string) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, suffix):
			return nil
		}
		source, err := os.ReadFile(path)
		all = append(all, string(source))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestMetricsAndLinesExist: the metrics and the log's lines that redis.md
// explains are those of the code.
func TestMetricsAndLinesExist(t *testing.T) {
	_, tables, ok := strings.Cut(read(t, "redis.md"), "## Troubleshooting")
	if !ok {
		t.Fatal("redis.md has no section Troubleshooting")
	}
	code := strings.Join(sources(t, ".go"), "")
	names := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?) \\|").FindAllStringSubmatch(tables, -1) {
		for _, m := range regexp.MustCompile("`([^`{]+)(?:\\{[^`]*)?`").FindAllStringSubmatch(row[1], -1) {
			if names++; !strings.Contains(code, `"`+m[1]+`"`) && m[1] != "reason" {
				t.Errorf("nothing is called %q", m[1])
			}
		}
	}
	if names < 25 {
		t.Errorf("got %d names, want at least 25", names)
	}
}

// TestEveryMetricIsExplained: every metric is in the tables of operations.md or of
// redis.md.
func TestEveryMetricIsExplained(t *testing.T) {
	tables := read(t, "operations.md") + read(t, "redis.md")
	names := 0
	metric := regexp.MustCompile(`(?:\b(?:describe|counts?|gauges?|histogram)\("|Name: +"rejoin_)(\w+)"`)
	for _, source := range sources(t, ".go") {
		for line := range strings.Lines(source) {
			for _, m := range metric.FindAllStringSubmatch(line, -1) {
				if names++; !strings.Contains(tables, "`"+m[1]) {
					t.Errorf("no document explains the metric %s", m[1])
				}
			}
		}
	}
	if names < 40 {
		t.Errorf("got %d metrics, want at least 40", names)
	}
}

// TestRefusalCodesAreNamed: operations.md has the name of each code of a refused request.
func TestRefusalCodesAreNamed(t *testing.T) {
	table, codes := read(t, "operations.md"), 0
	for _, source := range sources(t, "pkg/engineio/errors.go") {
		for _, m := range regexp.MustCompile(`refusal\{code: (-?\d+), message: "([^"]+)"`).FindAllStringSubmatch(source, -1) {
			if codes++; !strings.Contains(table, "| `"+m[1]+"` | "+m[2]+" |") {
				t.Errorf("no row for the code %s, %s", m[1], m[2])
			}
		}
	}
	if codes < 7 {
		t.Errorf("got %d codes, want at least 7", codes)
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#([^)]+))?\)`)

// TestLinks: the targets of the documents' links in this repository exist, including
// headings.
func TestLinks(t *testing.T) {
	for file, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target := filepath.Join(filepath.Dir(file), m[1])
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", file, err)
			} else if m[2] != "" && !hasHeading(t, target, m[2]) {
				t.Errorf("%s: %s has no heading #%s", file, target, m[2])
			}
		}
	}
}

// hasHeading reports whether a document has a heading with an anchor.
func hasHeading(t *testing.T, file, anchor string) bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
		words := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(words, " ", "-") == anchor {
			return true
		}
	}
	return false
}
