// Package gguf reads and validates GGUF model files (versions 2 and 3, split files included) in
// pure Go. Every model file passes here before C code sees it.
//
// It owns the file format: header, metadata, tensor table, and the facts that follow from them
// (Shape, Vocabulary, Summary). It never reads tensor data, except to digest a file.
// It must not know how a model is run, stored or planned: it imports the standard library only.
//
// A file is untrusted input. Every count and length is checked against a named limit and against
// the bytes that are really there before anything is allocated, all arithmetic is checked, and a
// refusal is an *Error that names the field and the byte offset.
package gguf

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
)

// File is an opened and validated GGUF model: one file, or all shards of a split one.
// It is immutable: all methods except Close may be used concurrently.
// It owns the descriptors of its shards until Close.
type File struct {
	version   uint32
	alignment int64
	entries   []entry
	index     map[string]int32 // key -> position in entries
	tensors   []Tensor
	names     map[string]int32 // tensor name -> position in tensors
	shards    []shard

	vocabulary struct { // of Vocabulary, which is asked for more than once
		once  sync.Once
		value Vocabulary
		err   error
	}
}

// shard is one file of a model. f and info are absent when the bytes came from Read.
type shard struct {
	path string
	r    io.ReaderAt
	size int64
	f    *os.File
	info fs.FileInfo
}

// Open opens path and every other shard that belongs to it, validates their headers fully and
// keeps the descriptors. Any shard of a split model may be named. Tensor data is not read.
//
// Errors: ErrIO (with fs.ErrNotExist, fs.ErrPermission below it), ErrNotGGUF, ErrVersion,
// ErrTruncated, ErrCorrupt, ErrLimit, ErrSplit.
func Open(path string) (*File, error) {
	first, err := openOne(path)
	if err != nil {
		return nil, err
	}
	return first.withShards(path)
}

// Read validates the GGUF file held by the first size bytes of r. A shard of a split model is
// read by itself. r must stay valid while the File is in use; Close does not close it.
func Read(r io.ReaderAt, size int64) (*File, error) {
	return parse(shard{r: r, size: size})
}

// openOne opens and parses a single file.
func openOne(path string) (*File, error) {
	fail := func(err error, hint string) error {
		return &Error{Op: "open", Kind: ErrIO, Offset: -1, Path: path, Hint: hint, Err: err}
	}
	// A pipe would block in os.Open, so the kind of file is asked for first.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fail(err, "check the path and its permissions")
	}
	if !info.Mode().IsRegular() {
		return nil, fail(fmt.Errorf("is a %s, not a regular file", describeMode(info.Mode())),
			"name the .gguf file itself")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fail(err, "check the path and its permissions")
	}
	info, err = f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrInvalid // replaced by something else since the first look
	}
	if err != nil {
		_ = f.Close() // read only: nothing can be lost, the first error matters
		return nil, fail(err, "name the .gguf file itself")
	}
	g, err := parse(shard{path: path, r: f, size: info.Size(), f: f, info: info})
	if err != nil {
		_ = f.Close() // read only: nothing can be lost, the first error matters
		return nil, err
	}
	return g, nil
}

func describeMode(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}

// Close releases the descriptors. It is safe to call twice.
func (f *File) Close() error {
	var first error
	for i := range f.shards {
		if h := f.shards[i].f; h != nil {
			f.shards[i].f = nil
			if err := h.Close(); err != nil && first == nil {
				first = &Error{Op: "close", Kind: ErrIO, Offset: -1, Path: f.shards[i].path, Err: err}
			}
		}
	}
	return first
}

// Paths returns the files of the model in shard order: the first is the one that holds the
// metadata and that llama.cpp loads. It is empty for a File from Read.
func (f *File) Paths() []string {
	var paths []string
	for _, s := range f.shards {
		if s.path != "" {
			paths = append(paths, s.path)
		}
	}
	return paths
}

// Files returns the open descriptors in shard order. They belong to f and are valid until Close;
// a loader that reads them (not the path) gets the bytes that were validated and digested.
func (f *File) Files() []*os.File {
	var files []*os.File
	for _, s := range f.shards {
		if s.f != nil {
			files = append(files, s.f)
		}
	}
	return files
}

// Size returns the bytes of all shards together.
func (f *File) Size() int64 {
	var n int64
	for _, s := range f.shards {
		n += s.size
	}
	return n
}

// Keys returns the metadata keys in file order (of the first shard).
func (f *File) Keys() []string {
	keys := make([]string, len(f.entries))
	for i := range f.entries {
		keys[i] = f.entries[i].key
	}
	return keys
}

// Tensors returns all tensors in shard and file order. The slice is the caller's.
func (f *File) Tensors() []Tensor { return slices.Clone(f.tensors) }

// Tensor returns the tensor of that name.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.names[name]
	if !ok {
		return Tensor{}, false
	}
	return f.tensors[i], true
}
