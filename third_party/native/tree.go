package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// treeFilesMax bounds the number of files of one tree; the pinned one has about 2,300.
const treeFilesMax = 50_000

// treeFiles lists the regular files below the given paths of root: relative, slashes, sorted.
// Anything that is neither a directory nor a regular file is refused.
func treeFiles(root string, paths []string) ([]string, error) {
	var files []string
	for _, p := range paths {
		top := filepath.Join(root, filepath.FromSlash(p))
		err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if !d.Type().IsRegular() {
				return fmt.Errorf("%s is not a regular file", name)
			}
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			if files = append(files, filepath.ToSlash(rel)); len(files) > treeFilesMax {
				return fmt.Errorf("more than %d files", treeFilesMax)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// treeDigest is the digest that the pin file defines.
func treeDigest(root string, paths []string) (string, error) {
	files, err := treeFiles(root, paths)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range files {
		sum, err := fileSHA256(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(h, "%s  %s\n", sum, name)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// verifyTree compares every group of the pin with what lies below root. A difference is an *Error
// of KindDigest; a tree that cannot be read is one of KindSource.
func verifyTree(root string, pin Pin) error {
	for _, g := range pin.Groups() {
		got, err := treeDigest(root, g.Paths)
		if err != nil {
			return &Error{Op: "verify sources", Kind: KindSource, Field: g.Name, Err: err}
		}
		if got != g.SHA256 {
			return &Error{
				Op: "verify sources", Kind: KindDigest, Field: g.Name,
				Err: fmt.Errorf("tree digest is %s, the pin says %s", got, g.SHA256),
			}
		}
	}
	return nil
}

func fileSHA256(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// inGroups says whether a relative slash path belongs to one of the groups.
func inGroups(name string, groups []Group) bool {
	for _, g := range groups {
		for _, p := range g.Paths {
			if name == p || strings.HasPrefix(name, p+"/") {
				return true
			}
		}
	}
	return false
}

// copyGroups copies the files of the groups from one tree to another, which must be new.
func copyGroups(from, to string, groups []Group) error {
	for _, g := range groups {
		files, err := treeFiles(from, g.Paths)
		if err != nil {
			return err
		}
		for _, name := range files {
			rel := filepath.FromSlash(name)
			if err := copyFile(filepath.Join(from, rel), filepath.Join(to, rel), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyFile writes a copy of src at dst, replacing it in one step. An equal dst is left untouched,
// so that its modification time does not tell a build tool otherwise.
func copyFile(src, dst string, mode fs.FileMode) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	return writeFile(dst, data, mode)
}

// writeFile replaces dst in one step unless it holds the data already.
func writeFile(dst string, data []byte, mode fs.FileMode) error {
	if old, err := os.ReadFile(dst); err == nil && string(old) == string(data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(dst), ".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), dst)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}
