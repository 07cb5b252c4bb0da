package integration

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// cheatsheet is the document whose rows are tested here. The tests expect the
// results in the document.
const cheatsheet = "../../docs/emit-cheatsheet.md"

// A sheetRow is one line of the document's tables.
type sheetRow struct {
	number    int
	reference []string // code
	ours      []string // code
	who       []string // of the five clients
	recovered bool
}

var codeSpan = regexp.MustCompile("`[^`]+`")

// readCheatsheet returns the rows of the document's tables by their number.
func readCheatsheet(t *testing.T) map[int]sheetRow {
	t.Helper()
	text, err := os.ReadFile(cheatsheet)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[int]sheetRow{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 8 {
			continue
		}
		number, err := strconv.Atoi(strings.TrimSpace(cells[1]))
		if err != nil {
			continue // the head of the table
		}
		if _, twice := rows[number]; twice {
			t.Errorf("duplicate row %d", number)
		}
		rows[number] = sheetRow{
			number:    number,
			reference: codeSpans(cells[2]),
			ours:      codeSpans(cells[3]),
			who:       strings.Fields(cells[5]),
			recovered: strings.TrimSpace(cells[6]) == "yes",
		}
	}
	return rows
}

func codeSpans(cell string) []string {
	spans := codeSpan.FindAllString(cell, -1)
	for i, span := range spans {
		spans[i] = strings.Trim(span, "`")
	}
	return spans
}

// TestCheatsheet plays every row with the stock client.
func TestCheatsheet(t *testing.T) {
	t.Parallel()
	rows := readCheatsheet(t)
	for _, table := range []map[int]func(*party){serverRows, clusterRows} {
		for number, play := range table {
			t.Run(fmt.Sprintf("%02d", number), func(t *testing.T) {
				t.Parallel()
				play(newParty(t, rows[number]))
			})
		}
	}
	for number, play := range clientRows {
		t.Run(fmt.Sprintf("%02d", number), func(t *testing.T) {
			t.Parallel()
			play(newRecorder(t))
		})
	}
}

// TestCheatsheetMatchesItsTests: the document has the rows 1 to 42, every row has
// a test, and the code in the document is the code that the test runs.
func TestCheatsheetMatchesItsTests(t *testing.T) {
	t.Parallel()
	rows := readCheatsheet(t)
	if len(rows) != 42 {
		t.Errorf("the document has %d rows", len(rows))
	}
	source := map[int]string{}
	for _, file := range []string{"cheatsheet_rows_test.go", "cheatsheet_cluster_test.go", "cheatsheet_client_test.go"} {
		rowSources(t, file, source)
	}
	for number := range 42 {
		number++
		row, documented := rows[number]
		test, tested := source[number]
		switch {
		case !documented:
			t.Errorf("row %d is not in the document", number)
			continue
		case !tested:
			t.Errorf("row %d has no test", number)
			continue
		}
		code := row.ours
		if _, clientSide := clientRows[number]; clientSide {
			code = append(code, row.reference...)
		}
		if len(code) == 0 {
			t.Errorf("row %d shows no code", number)
		}
		for _, c := range code {
			if !strings.Contains(oneLine(test), oneLine(c)) {
				t.Errorf("row %d: its test does not run %s", number, c)
			}
		}
	}
}

// rowSources adds the source text of each row's test.
func rowSources(t *testing.T, file string, source map[int]string) {
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
	ast.Inspect(parsed, func(n ast.Node) bool {
		pair, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		key, isNumber := pair.Key.(*ast.BasicLit)
		if _, isFunc := pair.Value.(*ast.FuncLit); isNumber && isFunc {
			number, err := strconv.Atoi(key.Value)
			if err != nil {
				t.Fatal(err)
			}
			source[number] = string(text[files.Position(pair.Value.Pos()).Offset:files.Position(pair.Value.End()).Offset])
		}
		return true
	})
}

func oneLine(code string) string { return strings.Join(strings.Fields(code), " ") }
