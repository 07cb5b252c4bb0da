package integration

import (
	"bytes"
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Programs in the documents are tested: each JavaScript block is run as a program
// and prints the output in its last comment; Go is the code of an Example of the
// library, and a whole program is built and served.

// The addresses in the documents: of a node, and of the README's program.
const (
	documentedNode    = "localhost:3000"
	documentedProgram = "localhost:8080"
)

var fence = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// A block is code in a document.
type block struct {
	where string // file:line
	code  string
}

// blocks returns the documents' code in a language, but for that of backends, which TestDocumentsAPI tests.
func blocks(t *testing.T, language string) []block {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	all := blocksOf(t, language, append(files, "../../README.md")...)
	return slices.DeleteFunc(all, func(b block) bool { return strings.Contains(b.code, documentedBackends) })
}

func blocksOf(t *testing.T, language string, files ...string) []block {
	t.Helper()
	var found []block
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllSubmatchIndex(text, -1) {
			if string(text[m[2]:m[3]]) == language {
				line := 1 + bytes.Count(text[:m[0]], []byte("\n"))
				found = append(found, block{
					where: filepath.Base(file) + ":" + strconv.Itoa(line),
					code:  string(text[m[4]:m[5]]),
				})
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("the documents show no %s", language)
	}
	return found
}

func TestDocumentsJavaScript(t *testing.T) {
	t.Parallel()
	program := startProgram(t)
	for _, b := range blocks(t, "js") {
		t.Run(b.where, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, "REJOIN_PING_INTERVAL=25s", "REJOIN_PING_TIMEOUT=20s") // as by default
			n.atStart = footprint{}                                                  // a program may leave a connection behind that ends by its timeout
			_, comment, ok := strings.Cut(b.code, "// Output:\n")
			if !ok {
				t.Fatal("the example lacks its output")
			}
			var want []string
			for line := range strings.Lines(comment) {
				want = append(want, strings.TrimPrefix(strings.TrimSpace(line), "// "))
			}
			code := strings.NewReplacer(documentedNode, n.addr, documentedProgram, program).Replace(b.code)
			got := strings.Split(strings.TrimSpace(runJS(t, code)), "\n")
			if !slices.Equal(got, want) {
				t.Errorf("it prints\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// startProgram builds and runs the README's program, and returns where it
// listens.
func startProgram(t *testing.T) (addr string) {
	t.Helper()
	all := blocks(t, "go")
	i := slices.IndexFunc(all, func(b block) bool { return isProgram(b.code) })
	if i < 0 {
		t.Fatal("the documents show no program")
	}
	addr = freeAddress(t)
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	code := strings.ReplaceAll(all[i].code, documentedProgram, addr)
	if err := os.WriteFile(source, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	binary := filepath.Join(dir, "program")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, source)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", all[i].where, err, out)
	}
	run := exec.Command(binary)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := run.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = run.Wait() // returns the error of the kill
	})
	eventually(t, "the program does not listen", func() error {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return addr
}

func isProgram(code string) bool { return strings.HasPrefix(code, "package main\n") }

// freeAddress returns an unused address, because the documented program does
// not support port 0.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestDocumentsGo: the Go code in the documents is, line for line, code of the
// library's Examples, which are compiled and run with its tests.
func TestDocumentsGo(t *testing.T) {
	t.Parallel()
	examples := exampleBodies(t, "../../pkg/socketio/example_test.go")
	for _, b := range blocks(t, "go") {
		code := b.code
		if isProgram(code) {
			_, code, _ = strings.Cut(code, "func main() {\n")
			code = strings.TrimSuffix(strings.TrimSpace(code), "}")
		}
		want := "\n" + unindented(code) + "\n"
		if !slices.ContainsFunc(examples, func(example string) bool { return strings.Contains(example, want) }) {
			t.Errorf("%s is in no Example:\n%s", b.where, code)
		}
	}
}

// exampleBodies returns the code of the Examples in a file, line by line and
// without indentation.
func exampleBodies(t *testing.T, file string) (bodies []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(f.Name.Name, "Example") {
			continue
		}
		from, to := files.Position(f.Body.Lbrace).Offset+1, files.Position(f.Body.Rbrace).Offset
		bodies = append(bodies, "\n"+unindented(string(text[from:to]))+"\n")
	}
	return bodies
}

func unindented(code string) string {
	lines := strings.Split(strings.TrimSpace(code), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "\n")
}

var (
	tableName   = regexp.MustCompile("(?m)^\\| `(\\w+)` \\|")
	appRequest  = regexp.MustCompile(`(?m)^\t"(\w+)": +(?:\w+,|\w+\(\w+\),|func)`)
	tokenCode   = regexp.MustCompile(`(?m)^\t\w+ +Code = "(\w+)"`)
	failureCode = regexp.MustCompile(`(?m)^\t\w+ +code = "(\w+)"`)
)

// TestDocumentsProtocol: the protocol's tables name the events and the failures
// of the built-in application, all of them and no others.
func TestDocumentsProtocol(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"echo", "once", "hook_failed"} // which are handled apart from the others
	for file, pattern := range map[string]*regexp.Regexp{
		"app/requests.go": appRequest,
		"app/failure.go":  failureCode,
		"auth/auth.go":    tokenCode,
	} {
		source, err := os.ReadFile("../../internal/" + file)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, names(pattern, source)...)
	}
	want = slices.DeleteFunc(want, func(name string) bool { return name == "unavailable" }) // two of them have it
	want = append(want, "unavailable")
	got := names(tableName, document)
	slices.Sort(want)
	slices.Sort(got)
	got = slices.Compact(got) // an event with several forms has a row for each
	if !slices.Equal(got, want) {
		t.Errorf("the document has\n%q, the application\n%q", got, want)
	}
}

func names(pattern *regexp.Regexp, text []byte) (found []string) {
	for _, m := range pattern.FindAllSubmatch(text, -1) {
		found = append(found, string(m[1]))
	}
	return found
}
