package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
)

// pinBytesMax bounds the pin file, which is about 2 KB.
const pinBytesMax = 64 << 10

// Group is a set of paths of the llama.cpp tree with the digest that they must have.
type Group struct {
	Name   string   // build, peers or templates
	Paths  []string // files and directories, relative, slashes
	SHA256 string   // tree digest, 64 hex digits
}

// Pin is the content of third_party/llama.cpp.pin.
type Pin struct {
	Version        string // llama.cpp's own version
	Commit         string // 40 hex digits
	Repository     string // git address
	Package        string // Python source distribution that carries the tree
	PackageVersion string
	PackageSHA256  string // of the source distribution's file
	PackageDir     string // the tree's directory inside it
	PackageBackend string // its build backend, as a Python module
	Build          Group
	Peers          Group
	Templates      Group
	CMakeMin       string // oldest cmake that is good enough
	CMakePackage   string // Python requirement that carries cmake
	NinjaPackage   string // Python requirement that carries ninja
}

// Groups lists the parts of the tree that are fetched and verified.
func (p Pin) Groups() []Group { return []Group{p.Build, p.Peers, p.Templates} }

// ID names the pinned content: it changes when any byte of any group does.
func (p Pin) ID() string {
	h := sha256.New()
	for _, g := range p.Groups() {
		_, _ = fmt.Fprintf(h, "%s %s %s\n", g.Name, g.SHA256, strings.Join(g.Paths, " "))
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// LoadPin reads the pin file.
func LoadPin(file string) (Pin, error) {
	f, err := os.Open(file)
	if err != nil {
		return Pin{}, &Error{Op: "read pin", Kind: KindPin, Field: file, Err: err}
	}
	defer func() { _ = f.Close() }()
	return ParsePin(f)
}

// ParsePin reads "key = value" lines; '#' begins a comment line. Every key must be there once.
func ParsePin(r io.Reader) (Pin, error) {
	values, err := parseKeys(r)
	if err != nil {
		return Pin{}, err
	}
	take := func(key string) string {
		v := values[key]
		delete(values, key)
		return v
	}
	group := func(name string) Group {
		return Group{name, strings.Fields(take(name + "_paths")), take(name + "_sha256")}
	}
	p := Pin{
		Version: take("version"), Commit: take("commit"), Repository: take("repository"),
		Package: take("package"), PackageVersion: take("package_version"),
		PackageSHA256: take("package_sha256"), PackageDir: take("package_dir"),
		PackageBackend: take("package_backend"),
		Build:          group("build"), Peers: group("peers"), Templates: group("templates"),
		CMakeMin: take("cmake_min"), CMakePackage: take("cmake_package"),
		NinjaPackage: take("ninja_package"),
	}
	for key := range values {
		return Pin{}, pinError(key, errors.New("no such key"))
	}
	return p, p.Validate()
}

func parseKeys(r io.Reader) (map[string]string, error) {
	values := map[string]string{}
	sc := bufio.NewScanner(io.LimitReader(r, pinBytesMax+1))
	size := 0
	for n := 1; sc.Scan(); n++ {
		if size += len(sc.Bytes()) + 1; size > pinBytesMax {
			return nil, pinError("", fmt.Errorf("larger than %d bytes", pinBytesMax))
		}
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch _, twice := values[key]; {
		case !ok || key == "":
			return nil, pinError(fmt.Sprintf("line %d", n), errors.New("not key = value"))
		case twice:
			return nil, pinError(key, errors.New("given twice"))
		case value == "":
			return nil, pinError(key, errors.New("empty"))
		}
		values[key] = value
	}
	if err := sc.Err(); err != nil {
		return nil, pinError("", err)
	}
	return values, nil
}

// Validate checks that every field is there and has its form.
func (p Pin) Validate() error {
	const hex40, hex64 = `[0-9a-f]{40}`, `[0-9a-f]{64}`
	const name, version = `[A-Za-z0-9][A-Za-z0-9._-]*`, `[0-9][A-Za-z0-9.+-]*`
	checks := []struct{ key, value, form string }{
		{"version", p.Version, version},
		{"commit", p.Commit, hex40},
		{"repository", p.Repository, `https://\S+`},
		{"package", p.Package, name},
		{"package_version", p.PackageVersion, version},
		{"package_sha256", p.PackageSHA256, hex64},
		{"package_dir", p.PackageDir, `[A-Za-z0-9._/-]+`},
		{"package_backend", p.PackageBackend, `[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+`},
		{"cmake_min", p.CMakeMin, `[0-9]+\.[0-9]+`},
		{"cmake_package", p.CMakePackage, name + `==` + version},
		{"ninja_package", p.NinjaPackage, name + `==` + version},
	}
	for _, g := range p.Groups() {
		checks = append(checks, struct{ key, value, form string }{
			g.Name + "_sha256", g.SHA256, hex64,
		})
		if len(g.Paths) == 0 {
			return pinError(g.Name+"_paths", errors.New("missing"))
		}
		for _, rel := range g.Paths {
			if !safeRelative(rel) {
				return pinError(g.Name+"_paths", fmt.Errorf("unsafe path %q", rel))
			}
		}
	}
	for _, c := range checks {
		if c.value == "" {
			return pinError(c.key, errors.New("missing"))
		}
		if !regexp.MustCompile(`^(?:` + c.form + `)$`).MatchString(c.value) {
			return pinError(c.key, fmt.Errorf("bad value %q", c.value))
		}
	}
	if !safeRelative(p.PackageDir) {
		return pinError("package_dir", fmt.Errorf("unsafe path %q", p.PackageDir))
	}
	return nil
}

// safeRelative says whether p is a clean relative slash path that stays below its root.
func safeRelative(p string) bool {
	return p != "" && p != "." && p == path.Clean(p) && !path.IsAbs(p) &&
		p != ".." && !strings.HasPrefix(p, "../") && !strings.ContainsAny(p, "\\:\x00")
}

func pinError(key string, err error) error {
	return &Error{
		Op: "read pin", Kind: KindPin, Field: key, Err: err,
		Hint: "third_party/llama.cpp.pin must hold each key once; `git checkout` restores it",
	}
}
