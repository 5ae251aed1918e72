package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// buildInfo is third_party/dist/build.json: what this build is. It holds no time, so that equal
// builds are equal files.
type buildInfo struct {
	Version    string   `json:"llama_version"`
	Commit     string   `json:"llama_commit"`
	Pinned     bool     `json:"pinned"`
	TreeSHA256 string   `json:"tree_sha256"` // of the compiled groups; empty when unpinned
	Flags      []string `json:"flags"`
	Tags       []string `json:"tags"`
	Compiler   string   `json:"compiler"`
	Key        string   `json:"cache_key"`
	Stamp      string   `json:"stamp"` // digest of the headers and libraries
}

// install copies headers, libraries, templates and licences to third_party/dist and removes what an
// earlier build with other options left there.
func (j *job) install() error {
	files, err := j.products()
	if err != nil {
		return err
	}
	dist := j.options.Dist()
	for name, src := range files {
		if err := copyFile(src, filepath.Join(dist, filepath.FromSlash(name)), 0o644); err != nil {
			return err
		}
	}
	for _, sub := range []string{"include", "lib", "templates", "licenses"} {
		if err := removeOthers(dist, sub, files); err != nil {
			return err
		}
	}
	if old, err := readBuildInfo(dist); err == nil && old.Key != j.key {
		if err := os.RemoveAll(filepath.Join(dist, "peers")); err != nil {
			return err
		}
	}
	return j.writeInfo(dist, files)
}

func (j *job) writeInfo(dist string, files map[string]string) error {
	stamp, err := stampOf(dist, files)
	if err != nil {
		return err
	}
	tags := j.options.Tags(j.compiler)
	info := buildInfo{
		Version: j.pin.Version, Commit: j.source.Commit, Pinned: j.source.Pinned,
		Flags: j.flags, Tags: tags, Compiler: j.compiler.Version, Key: j.key, Stamp: stamp,
	}
	if j.source.Pinned {
		info.Commit, info.TreeSHA256 = j.pin.Commit, j.pin.Build.SHA256
	}
	data, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	goenv, err := j.goenv()
	if err != nil {
		return err
	}
	header := "// Written by `make native`: makes the go command see a changed native build.\n" +
		"#define NORION_NATIVE_STAMP \"" + stamp + "\"\n" +
		"#define NORION_NATIVE_FLAGS " + strconv.Quote(strings.Join(j.flags, " ")) + "\n"
	return errors.Join(
		writeFile(filepath.Join(dist, "build.json"), append(data, '\n'), 0o644),
		writeFile(filepath.Join(dist, "tags"), []byte(strings.Join(tags, ",")+"\n"), 0o644),
		writeFile(filepath.Join(dist, "goenv"), []byte(goenv), 0o644),
		writeFile(filepath.Join(filepath.Dir(j.options.ShimDir()), "native_stamp.h"),
			[]byte(header), 0o644),
	)
}

// goenv is a text for the shell: the environment in which go builds and tests with this build.
func (j *job) goenv() (string, error) {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	text := "# Written by `make native`, to be sourced before go: tags, link flags, library path.\n" +
		"export CGO_ENABLED=1\nexport NORION_TAGS=" +
		quote(strings.Join(j.options.Tags(j.compiler), ",")) + "\n"
	if j.options.DL {
		text += "export LD_LIBRARY_PATH=" + quote(filepath.Join(j.options.Dist(), "lib")) +
			"${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\n"
	}
	if !j.options.CUDA {
		return text, nil
	}
	log, err := os.ReadFile(filepath.Join(j.stage, "configure.log"))
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`norion-cuda-dir: (\S+)`).FindSubmatch(log)
	if m == nil {
		return text, nil
	}
	return text + "export CGO_LDFLAGS=" + quote(fmt.Sprintf(
		"-O2 -g -L%s -L%s/stubs -Wl,-rpath,%s", m[1], m[1], m[1])) + "\n", nil
}

// products maps each file of dist, named with slashes, to the file that it is copied from.
func (j *job) products() (map[string]string, error) {
	files := map[string]string{}
	globs := map[string][]string{
		"include":   {"include/llama.h", "ggml/include/*.h"},
		"templates": {"models/templates/*.jinja"},
		"licenses":  {"LICENSE", "licenses/*"},
	}
	for sub, patterns := range globs {
		for _, p := range patterns {
			names, err := filepath.Glob(filepath.Join(j.source.Dir, filepath.FromSlash(p)))
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				files[sub+"/"+filepath.Base(name)] = name
			}
		}
	}
	vendored, err := filepath.Glob(filepath.Join(j.source.Dir, "vendor", "*", "LICENSE*"))
	if err != nil {
		return nil, err
	}
	for _, name := range vendored {
		files["licenses/LICENSE-"+filepath.Base(filepath.Dir(name))] = name
	}
	headers, err := filepath.Glob(filepath.Join(j.stage, "shim", "norion*.h"))
	if err != nil {
		return nil, err
	}
	for _, name := range headers {
		files["include/"+filepath.Base(name)] = name
	}
	libs, err := j.libraries()
	for _, name := range libs {
		files["lib/"+filepath.Base(name)] = name
	}
	return files, err
}

// libraries finds the built libraries: those that the link line names, and every shared one.
func (j *job) libraries() ([]string, error) {
	want := map[string]bool{}
	for _, lib := range j.options.Libraries() {
		want["lib"+lib+".a"] = true
	}
	var found []string
	err := filepath.WalkDir(j.buildDir(), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		base := d.Name()
		if want[base] || j.options.DL && isShared(base) {
			found = append(found, name)
			delete(want, base)
		}
		return nil
	})
	if err == nil && len(want) > 0 {
		missing := make([]string, 0, len(want))
		for name := range want {
			missing = append(missing, name)
		}
		slices.Sort(missing)
		err = &Error{
			Op: "install", Kind: KindBuild, Field: strings.Join(missing, ", "),
			Err: errors.New("not built"),
		}
	}
	return found, err
}

// isShared says whether a file is a shared library that a program of norion loads: under the name
// that links (libx.so), the name that loads (libx.so.0), or a plug-in. The third name, with the
// whole version, is the same file again; libraries of the peer programs are not wanted.
func isShared(base string) bool {
	if !strings.HasPrefix(base, "lib") || strings.HasPrefix(base, "libmtmd") ||
		strings.Contains(base, "-impl.") {
		return false
	}
	if strings.HasPrefix(base, "libggml-cpu") {
		return strings.HasSuffix(base, ".so")
	}
	return regexp.MustCompile(`\.so(\.\d+)?$|\.dylib$`).MatchString(base)
}

func removeOthers(dist, sub string, keep map[string]string) error {
	entries, err := os.ReadDir(filepath.Join(dist, sub))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if _, ok := keep[sub+"/"+e.Name()]; !ok {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dist, sub, e.Name())))
		}
	}
	return err
}

// stampOf is the digest of the installed headers and libraries.
func stampOf(dist string, files map[string]string) (string, error) {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	h := sha256.New()
	for _, name := range names {
		sum, err := fileSHA256(filepath.Join(dist, filepath.FromSlash(name)))
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(h, "%s  %s\n", sum, name)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func readBuildInfo(dist string) (buildInfo, error) {
	var info buildInfo
	data, err := os.ReadFile(filepath.Join(dist, "build.json"))
	if err != nil {
		return info, err
	}
	return info, json.Unmarshal(data, &info)
}

// installPeers copies the peer programs, and the shared libraries that they load, to dist/peers.
func (j *job) installPeers() error {
	dir := filepath.Join(j.options.Dist(), "peers")
	for _, name := range peerPrograms() {
		built := j.file(filepath.Join("bin", name))
		if err := copyFile(built, filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	if !j.options.DL {
		return nil
	}
	libs, err := filepath.Glob(j.file(filepath.Join("bin", "lib*")))
	if err != nil {
		return err
	}
	full := regexp.MustCompile(`\.so(\.\d+){2,}$`)
	for _, lib := range slices.DeleteFunc(libs, full.MatchString) {
		if err := copyFile(lib, filepath.Join(dir, filepath.Base(lib)), 0o644); err != nil {
			return err
		}
	}
	return nil
}
