package house_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// module is the path of this module.
const module = "github.com/norion/norion"

// tree is the text of every file of the repository by its path with slashes.
type tree map[string]string

// rule lists the violations in a tree, each as "path:line: what" or "path: what".
type rule func(tree) []string

// rules are all rules by name; TestPlanted shows that each one catches its violation.
func rules() map[string]rule {
	return map[string]rule{
		"lattice":         latticeRule,
		"package-comment": packageCommentRule,
		"one-cgo":         oneCgoRule,
		"unsafe":          unsafeRule,
		"c-exported":      cExportedRule,
		"function-lines":  functionLinesRule,
		"file-lines":      fileLinesRule,
		"columns":         columnsRule,
		"registry":        registryRule,
		"machine-path":    machinePathRule,
		"top-level":       topLevelRule,
		"dependency":      dependencyRule,
		"make-help":       makeHelpRule,
		"readme":          readmeRule,
		"allow-reason":    allowReasonRule,
	}
}

func TestHouse(t *testing.T) {
	t.Parallel()
	files := readTree(t)
	for name, r := range rules() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, violation := range r(files) {
				t.Error(violation)
			}
		})
	}
}

// readTree reads what git tracks or would add. Without git it reads everything but build output.
func readTree(t *testing.T) tree {
	t.Helper()
	root := filepath.Join("..", "..")
	files := tree{}
	for _, name := range treeNames(t, root) {
		info, err := os.Lstat(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue // deleted and not yet committed
		}
		require.NoError(t, err)
		data, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		files[filepath.ToSlash(name)] = string(data)
	}
	require.Contains(t, files, "go.mod")
	return files
}

func treeNames(t *testing.T, root string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "-C", root,
		"ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if out, err := cmd.Output(); err == nil {
		return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	}
	var names []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && slices.Contains([]string{".git", "bin", ".cover"}, rel),
			d.IsDir() && rel == filepath.Join("third_party", "dist"),
			d.IsDir() && strings.HasSuffix(rel, filepath.Join("testdata", "rapid")):
			return fs.SkipDir
		case !d.IsDir():
			names = append(names, rel)
		}
		return nil
	})
	require.NoError(t, err)
	return names
}

// names gives the paths of the tree in order.
func (files tree) names() []string {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// goFile is a parsed Go file.
type goFile struct {
	name string // path in the tree
	pkg  string // directory: the package's path in the module
	test bool
	fset *token.FileSet
	file *ast.File
}

func (g goFile) line(p token.Pos) int { return g.fset.Position(p).Line }

// goFiles parses the Go files outside testdata. A file that does not parse is left to the compiler.
func (files tree) goFiles() []goFile {
	var parsed []goFile
	for _, name := range files.names() {
		if path.Ext(name) != ".go" || strings.Contains("/"+name, "/testdata/") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, files[name], parser.ParseComments)
		if err != nil {
			continue
		}
		parsed = append(parsed, goFile{
			name, path.Dir(name), strings.HasSuffix(name, "_test.go"), fset, f,
		})
	}
	return parsed
}

// isCode says whether the length rules hold for a file: Go, and norion's own C++.
func isCode(name string) bool {
	return path.Ext(name) == ".go" && !strings.Contains("/"+name, "/testdata/") || isShim(name)
}

func isShim(name string) bool {
	ext := path.Ext(name)
	return strings.HasPrefix(name, "runtime/llama/shim/") &&
		slices.Contains([]string{".cpp", ".h", ".hpp"}, ext)
}

// allowMark is how an exception begins, put together so that this line is none itself.
const allowMark = "//house:" + "allow "

// allowed says whether one of the lines holds an exception from the rule, with a reason.
func allowed(rule string, lines ...string) bool {
	for _, line := range lines {
		if i := strings.Index(line, allowMark+rule+" "); i >= 0 {
			return len(strings.Fields(line[i:])) > 2
		}
	}
	return false
}

// allowReasonRule wants a known rule and a reason in each exception.
func allowReasonRule(files tree) []string {
	var found []string
	for _, name := range files.names() {
		for n, line := range lines(files[name]) {
			i := strings.Index(line, allowMark)
			if i < 0 || !isCode(name) {
				continue
			}
			words := strings.Fields(line[i:])
			if _, ok := rules()[words[min(1, len(words)-1)]]; !ok || len(words) < 4 {
				found = append(found, fmt.Sprintf(
					"%s:%d: an exception names its rule and gives its reason", name, n+1))
			}
		}
	}
	return found
}

func lines(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// fenced gives the lines inside ``` fences of a Markdown text.
func fenced(text string) []string {
	var inside []string
	in := false
	for _, line := range lines(text) {
		if regexp.MustCompile("^\\s*```").MatchString(line) {
			in = !in
		} else if in {
			inside = append(inside, strings.TrimSpace(line))
		}
	}
	return inside
}
