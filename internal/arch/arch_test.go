// Package arch is the layout of the project as a test: the allowed imports, and the globals
// that only the outermost packages may use.
package arch

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/rejoin-io/rejoin/"

// arrows lists, for each package, the packages of this module that it may import. Every
// package must be in the list, so that adding one is a decision.
var arrows = map[string][]string{
	"pkg/packet":   {},
	"pkg/engineio": {},
	"pkg/rooms":    {},
	"pkg/session":  {},
	"pkg/adapter":  {"pkg/rooms", "internal/queue"},
	"pkg/socketio": {"pkg/packet", "pkg/engineio", "pkg/rooms", "pkg/adapter", "pkg/session"},

	"pkg/adapter/adaptertest": {"pkg/adapter", "pkg/rooms"},
	"pkg/session/sessiontest": {"pkg/session"},

	"pkg/redisurl":      {},
	"pkg/session/redis": {"pkg/session", "internal/batch"},
	"pkg/adapter/redis": {"pkg/adapter", "pkg/adapter/redis/internal/feed", "pkg/rooms", "pkg/redisurl", "internal/batch", "internal/queue"},

	"pkg/adapter/redis/internal/feed": {"pkg/adapter", "pkg/rooms"},

	"internal/arch":    {},
	"internal/docs":    {},
	"internal/batch":   {},
	"internal/queue":   {},
	"internal/client":  {},
	"internal/demo":    {},
	"internal/health":  {},
	"internal/certs":   {},
	"internal/limit":   {"pkg/engineio"},
	"internal/forward": {"internal/limit", "pkg/engineio", "pkg/adapter"},
	"internal/auth":    {},
	"internal/strict":  {},
	"internal/hooks":   {"internal/auth", "internal/limit", "internal/strict"},
	"internal/app":     {"internal/auth", "internal/hooks", "internal/limit", "pkg/socketio", "pkg/packet", "pkg/adapter", "pkg/session"},
	"internal/api":     {"internal/api/idempotency", "internal/auth", "internal/strict", "pkg/socketio", "pkg/packet", "pkg/adapter"},
	"internal/metrics": {"pkg/socketio", "pkg/engineio", "internal/app", "internal/auth", "internal/forward", "internal/health", "pkg/adapter", "pkg/adapter/redis", "pkg/session/redis"},

	"internal/api/idempotency":                 {},
	"internal/api/idempotency/idempotencytest": {"internal/api/idempotency"},

	"internal/redistest": {},

	"cmd/node": {
		"internal/api", "internal/api/idempotency",
		"internal/app", "internal/auth", "internal/certs", "internal/client", "internal/demo", "internal/forward", "internal/health", "internal/hooks", "internal/limit", "internal/metrics",
		"pkg/socketio", "pkg/engineio", "pkg/adapter", "pkg/session",
		"pkg/adapter/redis", "pkg/session/redis", "pkg/redisurl",
	},
}

// testArrows are additional imports allowed in tests.
var testArrows = map[string][]string{
	"internal/api/idempotency": {"internal/api/idempotency/idempotencytest", "internal/redistest", "pkg/redisurl"},

	"pkg/adapter":       {"pkg/adapter/adaptertest"},
	"pkg/session":       {"pkg/session/sessiontest"},
	"pkg/redisurl":      {"internal/redistest"},
	"pkg/session/redis": {"pkg/session/sessiontest", "pkg/redisurl", "internal/redistest"},

	"pkg/adapter/redis": {"pkg/adapter/adaptertest", "internal/redistest"},
	"internal/app":      {"pkg/rooms"},

	"cmd/node": {"internal/redistest"},

	"internal/docs": {
		"internal/api/idempotency", "internal/api/idempotency/idempotencytest", "internal/redistest", "pkg/adapter", "pkg/adapter/adaptertest", "pkg/adapter/redis", "pkg/redisurl", "pkg/rooms",
		"pkg/session", "pkg/session/redis", "pkg/session/sessiontest",
	},
}

// outermost reports whether a package may use globals of the process.
func outermost(pkg string) bool {
	return strings.HasPrefix(pkg, "cmd/") || strings.HasPrefix(pkg, "internal/")
}

// A listed is a package as go list describes it.
type listed struct {
	Dir                                string
	ImportPath                         string
	GoFiles                            []string
	Imports, TestImports, XTestImports []string
}

func list(t *testing.T) map[string]listed {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=Dir,ImportPath,GoFiles,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := make(map[string]listed)
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p listed
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages[strings.TrimPrefix(p.ImportPath, module)] = p
	}
	return packages
}

func TestArrows(t *testing.T) {
	packages := list(t)
	for name, p := range packages {
		allowed, known := arrows[name]
		if !known {
			t.Errorf("%s is not in the table of arrows", name)
			continue
		}
		check := func(imports, allowed []string) {
			for _, path := range imports {
				if ours, ok := strings.CutPrefix(path, module); ok && !slices.Contains(allowed, ours) {
					t.Errorf("%s must not import %s", name, ours)
				}
			}
		}
		check(p.Imports, allowed)
		check(slices.Concat(p.TestImports, p.XTestImports), slices.Concat(allowed, testArrows[name], []string{name}))
	}
	for name := range arrows {
		if _, exists := packages[name]; !exists {
			t.Errorf("%s is in the table of arrows, but not in the module", name)
		}
	}
}

// Only the outermost packages export metrics; the others offer snapshots.
func TestNoMetricsInTheLibrary(t *testing.T) {
	for name, p := range list(t) {
		for _, path := range p.Imports {
			if !outermost(name) && (strings.HasPrefix(path, "github.com/prometheus/") || path == "expvar") {
				t.Errorf("%s must not import %s", name, path)
			}
		}
	}
}

// globals are functions that use globals of the process.
var globals = map[string][]string{
	"os":              {"Getenv", "LookupEnv", "Environ", "Setenv", "Exit"},
	"go.uber.org/zap": {"L", "S", "ReplaceGlobals"},
	"log":             {"Print", "Printf", "Println", "Fatal", "Fatalf", "Fatalln", "Default", "SetOutput"},
	"log/slog":        {"Debug", "Info", "Warn", "Error", "Default", "SetDefault"},
}

// The library's packages receive their dependencies. Only the command reads the
// environment, and there is no global logger.
func TestNoGlobals(t *testing.T) {
	for name, p := range list(t) {
		if name == "cmd/node" {
			continue
		}
		for _, base := range p.GoFiles {
			for _, use := range globalUses(t, filepath.Join(p.Dir, base), nil) {
				t.Errorf("%s must not use %s", name, use)
			}
		}
	}
}

// The scan finds globals under any import name.
func TestGlobalUsesAreFound(t *testing.T) {
	source := `package p
		import ("os"; z "go.uber.org/zap"; "log")
		var _, _ = os.Getenv("X"), z.L()
		func f(log *z.Logger) { log.Info("not the package"); z.NewNop() }`
	if got := globalUses(t, "p.go", source); !slices.Equal(got, []string{"os.Getenv", "go.uber.org/zap.L"}) {
		t.Errorf("found %q", got)
	}
}

// globalUses returns the globals that a file uses. The source is read from the
// file if it is nil.
func globalUses(t *testing.T, file string, source any) (uses []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	imported := make(map[string]string) // the names of packages in this file
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		name := path[strings.LastIndexByte(path, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imported[name] = path
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && slices.Contains(globals[imported[x.Name]], s.Sel.Name) {
				uses = append(uses, imported[x.Name]+"."+s.Sel.Name)
			}
		}
		return true
	})
	return uses
}
