package house_test

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of length. A tab counts as one column.
const (
	functionLinesMax = 70
	fileLinesMax     = 500
	columnsMax       = 100
)

// cgoPackage is the one package that may see C.
const cgoPackage = "runtime/llama"

// packageCommentRule wants one comment in the usual form that says what the package owns and what
// it must not know.
func packageCommentRule(files tree) []string {
	docs, dirs := map[string]string{}, map[string]bool{}
	for _, g := range files.goFiles() {
		if g.test {
			continue
		}
		dirs[g.pkg] = true
		if g.file.Doc == nil {
			continue
		}
		text := g.file.Doc.Text()
		word := "Package " + g.file.Name.Name
		if g.file.Name.Name == "main" {
			word = "Command " + path.Base(g.pkg)
		}
		if strings.HasPrefix(text, word+" ") {
			docs[g.pkg] += strings.Join(strings.Fields(text), " ")
		}
	}
	var found []string
	for dir := range dirs {
		switch doc := docs[dir]; {
		case doc == "":
			found = append(found, dir+": no package comment")
		case !regexp.MustCompile(`(?i)\bowns?\b`).MatchString(doc):
			found = append(found, dir+": the package comment does not say what it owns")
		case !regexp.MustCompile(`(?i)must not know|must know nothing|knows nothing|does not know`).
			MatchString(doc):
			found = append(found, dir+": the package comment does not say what it must not know")
		}
	}
	slices.Sort(found)
	return found
}

func imports(g goFile, name string) int {
	for _, spec := range g.file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil && p == name {
			return g.line(spec.Pos())
		}
	}
	return 0
}

// oneCgoRule wants import "C" in exactly one package.
func oneCgoRule(files tree) []string {
	var found []string
	seen := false
	for _, g := range files.goFiles() {
		if line := imports(g, "C"); line > 0 {
			if g.pkg == cgoPackage {
				seen = true
			} else {
				found = append(found, fmt.Sprintf("%s:%d: only %s may import C", g.name, line, cgoPackage))
			}
		}
	}
	if !seen {
		found = append(found, cgoPackage+": no import of C")
	}
	return found
}

// unsafeRule keeps unsafe, cgo.Handle and runtime.Pinner in that package.
func unsafeRule(files tree) []string {
	var found []string
	for _, g := range files.goFiles() {
		if g.pkg == cgoPackage {
			continue
		}
		for _, name := range []string{"unsafe", "runtime/cgo"} {
			if line := imports(g, name); line > 0 {
				found = append(found, fmt.Sprintf("%s:%d: only %s may import %s",
					g.name, line, cgoPackage, name))
			}
		}
		ast.Inspect(g.file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && isSelector(s, "runtime", "Pinner") {
				found = append(found, fmt.Sprintf("%s:%d: only %s may pin memory",
					g.name, g.line(s.Pos()), cgoPackage))
			}
			return true
		})
	}
	return found
}

func isSelector(s *ast.SelectorExpr, pkg, name string) bool {
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg && (name == "" || s.Sel.Name == name)
}

// cExportedRule keeps C types out of exported signatures, fields and variables.
func cExportedRule(files tree) []string {
	var found []string
	for _, g := range files.goFiles() {
		if imports(g, "C") == 0 {
			continue
		}
		for name, typ := range exportedTypes(g.file) {
			ast.Inspect(typ, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && isSelector(s, "C", "") {
					found = append(found, fmt.Sprintf("%s:%d: exported %s shows C.%s",
						g.name, g.line(s.Pos()), name.Name, s.Sel.Name))
				}
				return true
			})
		}
	}
	return found
}

// exportedTypes gives each exported name of a file that has a written type, with that type. Of a
// struct it gives the exported fields.
func exportedTypes(f *ast.File) map[*ast.Ident]ast.Expr {
	types := map[*ast.Ident]ast.Expr{}
	add := func(names []*ast.Ident, typ ast.Expr) {
		for _, name := range names {
			if name.IsExported() && typ != nil {
				types[name] = typ
			}
		}
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			add([]*ast.Ident{fn.Name}, fn.Type)
		}
		gen, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if st, ok := s.Type.(*ast.StructType); ok {
					for _, field := range st.Fields.List {
						add(field.Names, field.Type)
					}
				} else {
					add([]*ast.Ident{s.Name}, s.Type)
				}
			case *ast.ValueSpec:
				add(s.Names, s.Type)
			}
		}
	}
	return types
}

// functionLinesRule bounds functions, from `func` to the closing brace, and those of the shim.
func functionLinesRule(files tree) []string {
	var found []string
	report := func(name string, first, last int, text []string) {
		n := last - first + 1
		if n > functionLinesMax && !allowed("function-lines", text[max(0, first-2)], text[first-1]) {
			found = append(found, fmt.Sprintf("%s:%d: function of %d lines, at most %d",
				name, first, n, functionLinesMax))
		}
	}
	for _, g := range files.goFiles() {
		text := lines(files[g.name])
		for _, d := range g.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				report(g.name, g.line(f.Pos()), g.line(f.End()), text)
			}
		}
	}
	for _, name := range files.names() {
		if isShim(name) {
			for _, f := range shimFunctions(files[name]) {
				report(name, f[0], f[1], lines(files[name]))
			}
		}
	}
	return found
}

func fileLinesRule(files tree) []string {
	var found []string
	for _, name := range files.names() {
		if !isCode(name) {
			continue
		}
		text := lines(files[name])
		if len(text) > fileLinesMax && !allowed("file-lines", text...) {
			found = append(found, fmt.Sprintf("%s: %d lines, at most %d",
				name, len(text), fileLinesMax))
		}
	}
	return found
}

func columnsRule(files tree) []string {
	var found []string
	for _, name := range files.names() {
		if !isCode(name) {
			continue
		}
		text := lines(files[name])
		for i, line := range text {
			n := utf8.RuneCountInString(line)
			if n > columnsMax && !allowed("columns", line, text[max(0, i-1)]) {
				found = append(found, fmt.Sprintf("%s:%d: %d columns, at most %d",
					name, i+1, n, columnsMax))
			}
		}
	}
	return found
}
