package house_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// goodTree is a small tree without a violation.
func goodTree() tree {
	verbs := strings.Fields("help run build native peers test race asan fuzz bench lint cover clean")
	return tree{
		"go.mod":    "module " + module + "\n\nrequire (\n\texample.test/dep v1.0.0\n)\n",
		"go.sum":    "",
		"LICENSE":   "a licence",
		"Makefile":  strings.Join(verbs, ": ## does it\n") + ": ## does it\n",
		".ci/run":   "make test\n",
		"README.md": "# norion\n```sh\nmake run   # a model answers\nmake test\n```\n",
		"runtime/llama/a.go": "// Package llama owns C. It must not know more.\n" +
			"package llama\n\nimport \"C\"\n\n// T is fine.\ntype T struct{ p C.int }\n",
		"runtime/llama/shim/a.cpp": "int f() {\n    return 1;\n}\n",
		"runtime/infer/a.go": "// Package infer owns words. It must not know C.\n" +
			"package infer\n\nimport _ \"example.test/dep/sub\"\n",
		"docs/adr/0002-dependencies.md": "| `example.test/dep` | does it | them | nothing |\n",
	}
}

func TestGoodTree(t *testing.T) {
	t.Parallel()
	for name, r := range rules() {
		require.Empty(t, r(goodTree()), name)
	}
}

// TestPlanted plants one violation at a time and wants its rule, by name, to find it.
//
//house:allow function-lines it is one table
func TestPlanted(t *testing.T) {
	t.Parallel()
	infer := "// Package infer owns words. It must not know C.\npackage infer\n"
	body := func(n int) string { return "{\n" + strings.Repeat("\t_ = 1\n", n-2) + "}\n" }
	for _, tt := range []struct{ name, rule, file, text, want string }{
		{
			"upward import", "lattice", "runtime/infer/b.go",
			"package infer\n\nimport _ \"" + module + "/runtime/engine\"\n", "may not import",
		},
		{
			"control sees C", "lattice", "control/load/b.go",
			"package load\n\nimport _ \"" + module + "/runtime/llama\"\n", "may not import",
		},
		{
			"test edge outside a test", "lattice", "runtime/llama/b.go",
			"package llama\n\nimport _ \"" + module + "/runtime/store\"\n", "may not import",
		},
		{"unknown room", "lattice", "runtime/util/b.go", "package util\n", "no such room"},
		{"no comment", "package-comment", "runtime/gguf/b.go", "package gguf\n", "no package comment"},
		{
			"comment owns nothing", "package-comment", "runtime/gguf/b.go",
			"// Package gguf reads. It must not know C.\npackage gguf\n", "what it owns",
		},
		{
			"comment knows all", "package-comment", "runtime/gguf/b.go",
			"// Package gguf owns files.\npackage gguf\n", "must not know",
		},
		{
			"second cgo package", "one-cgo", "runtime/infer/b.go",
			"package infer\n\nimport \"C\"\n", "may import C",
		},
		{"no cgo package", "one-cgo", "runtime/llama/a.go", "package llama\n", "no import of C"},
		{
			"unsafe", "unsafe", "runtime/infer/b.go",
			"package infer\n\nimport \"unsafe\"\n", "import unsafe",
		},
		{
			"pinner", "unsafe", "runtime/infer/b.go",
			"package infer\n\nimport \"runtime\"\n\nvar p runtime.Pinner\n", "pin memory",
		},
		{
			"C in a signature", "c-exported", "runtime/llama/b.go",
			"package llama\n\nimport \"C\"\n\nfunc F() *C.int { return nil }\n", "F shows C.int",
		},
		{
			"C in a field", "c-exported", "runtime/llama/b.go",
			"package llama\n\nimport \"C\"\n\ntype T struct{ A C.int }\n", "A shows C.int",
		},
		{
			"long function", "function-lines", "runtime/infer/b.go",
			infer + "func f() " + body(functionLinesMax+1), "function of 71 lines",
		},
		{
			"long C++ function", "function-lines", "runtime/llama/shim/b.cpp",
			"void f() " + body(functionLinesMax+1), "function of 71 lines",
		},
		{
			"exception without reason", "function-lines", "runtime/infer/b.go",
			infer + allowMark + "function-lines \nfunc f() " + body(71), "function of 71 lines",
		},
		{
			"long file", "file-lines", "runtime/infer/b.go",
			infer + strings.Repeat("\n", fileLinesMax), "lines, at most 500",
		},
		{
			"long line", "columns", "runtime/infer/b.go",
			infer + "// " + strings.Repeat("é", columnsMax-2) + "\n", "101 columns",
		},
		{
			"long C++ line", "columns", "runtime/llama/shim/b.h",
			"// " + strings.Repeat("x", columnsMax-2) + "\n", "101 columns",
		},
		{"registry", "registry", "docs/a.md", "see " + registries()[0] + "/x\n", "names the registry"},
		{"machine path", "machine-path", "docs/a.md", "in /ho" + "me/me/norion\n", "absolute path"},
		{"stray top level", "top-level", "src/a.c", "", "src: not one"},
		{"stray top file", "top-level", "notes.md", "", "notes.md: not one"},
		{"dependency without row", "dependency", dependencyADR, "", "no full row"},
		{
			"dependency with half a row", "dependency", dependencyADR,
			"| `example.test/dep` | does it | | |\n", "no full row",
		},
		{"missing verb", "make-help", "Makefile", "help: ## lists\n", "no verb run"},
		{"idle CI", "make-help", ".ci/run", "true\n", "does not call"},
		{
			"third command", "readme", "README.md",
			"```sh\nmake run\nmake test\nmake native\n```\n", "set-up commands",
		},
		{"missing command", "readme", "README.md", "```sh\nmake run\n```\n", "set-up commands"},
		{
			"unknown exception", "allow-reason", "runtime/infer/b.go",
			infer + allowMark + "everything because I can\n", "names its rule",
		},
		{
			"unreasoned exception", "allow-reason", "runtime/infer/b.go",
			infer + allowMark + "columns long\n", "names its rule",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			files := goodTree()
			files[tt.file] = tt.text
			require.Contains(t, strings.Join(rules()[tt.rule](files), "\n"), tt.want)
		})
	}
}

// TestAllowed shows the other side: at the bound, and with a reasoned exception, nothing is found.
func TestAllowed(t *testing.T) {
	t.Parallel()
	infer := "// Package infer owns words. It must not know C.\npackage infer\n"
	body := func(n int) string { return "{\n" + strings.Repeat("\t_ = 1\n", n-2) + "}\n" }
	long := "// " + strings.Repeat("x", columnsMax)
	for name, text := range map[string]string{
		"function at the bound":  infer + "func f() " + body(functionLinesMax),
		"long function, allowed": infer + allowMark + "function-lines one table\nfunc f() " + body(90),
		"columns at the bound":   infer + "// " + strings.Repeat("x", columnsMax-3) + "\n",
		"columns allowed before": infer + allowMark + "columns a digest\n" + long + "\n",
		"file at the bound":      infer + strings.Repeat("\n", fileLinesMax-2),
		"file allowed": infer + strings.Repeat("\n", fileLinesMax) +
			allowMark + "file-lines one table\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := goodTree()
			files["runtime/infer/b.go"] = text
			for rule, r := range rules() {
				require.Empty(t, r(files), rule)
			}
		})
	}
}
