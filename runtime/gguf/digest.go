package gguf

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
)

const (
	digestChunkBytes = 1 << 20
	hintChanged      = "something writes to the file: stop that, then open the model again"
)

// Digest returns "sha256:" and the hex SHA-256 of all bytes of all shards, in shard order, read
// through the descriptors that Open validated. progress may be nil; it is called after each
// chunk with bytes done and bytes in all. A file that shrank, grew or was written to since Open
// gives ErrChanged. Other errors: ErrIO, and ctx.Err() as the kind when cancelled.
func (f *File) Digest(ctx context.Context, progress func(done, total int64)) (string, error) {
	h := sha256.New()
	buf := make([]byte, digestChunkBytes)
	var done int64
	total := f.Size()
	for i := range f.shards {
		s := &f.shards[i]
		for off := int64(0); off < s.size; {
			if err := ctx.Err(); err != nil {
				return "", &Error{Op: "digest", Kind: err, Path: s.path, Offset: off}
			}
			n, err := s.r.ReadAt(buf[:min(digestChunkBytes, s.size-off)], off)
			if n == 0 {
				return "", s.readError(off, err)
			}
			h.Write(buf[:n])
			off += int64(n)
			done += int64(n)
			if progress != nil {
				progress(done, total)
			}
		}
	}
	if err := f.CheckUnchanged(); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// readError tells a file that became shorter from a device that failed.
func (s *shard) readError(off int64, err error) error {
	kind, hint := ErrIO, ""
	if errors.Is(err, io.EOF) {
		kind, hint = ErrChanged, hintChanged
	}
	return &Error{Op: "digest", Kind: kind, Path: s.path, Offset: off, Hint: hint, Err: err}
}

// CheckUnchanged compares every shard with what Open saw: size and modification time of the
// descriptor, and that the path still names the same file. Call it between Open and a load that
// goes by path. Errors: ErrChanged, ErrIO. It says nothing after Read.
func (f *File) CheckUnchanged() error {
	for i := range f.shards {
		s := &f.shards[i]
		if s.f == nil {
			continue
		}
		now, err := s.f.Stat()
		if err != nil {
			return &Error{Op: "check", Kind: ErrIO, Path: s.path, Offset: -1, Err: err}
		}
		changed := func(what string) error {
			return &Error{
				Op: "check", Kind: ErrChanged, Path: s.path, Offset: -1, Field: what, Hint: hintChanged,
			}
		}
		if now.Size() != s.info.Size() {
			return changed("size")
		}
		if !now.ModTime().Equal(s.info.ModTime()) {
			return changed("modification time")
		}
		if there, err := os.Stat(s.path); err != nil || !os.SameFile(there, s.info) {
			return changed("path names another file")
		}
	}
	return nil
}
