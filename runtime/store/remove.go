package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Verify hashes the file of a model again. report, when not nil, gets the bytes so far. Errors:
// ErrDigest when the file is not what was pulled, and those of Resolve. A path is refused with
// ErrName: nothing is recorded of it.
func (s *Store) Verify(ctx context.Context, ref string, report func(done, total int64)) error {
	m, err := s.named(ctx, ref)
	if err != nil {
		return typed("verify", clip(ref), ErrIO, err)
	}
	got, err := s.hash(ctx, blobPath(m.Digest), func(n int64) {
		if report != nil {
			report(n, m.SizeBytes)
		}
	})
	if err == nil && got != m.Digest {
		err = &Error{
			Kind: ErrDigest, Err: fmt.Errorf("the file has %s, pulled was %s", got, m.Digest),
			Hint: fmt.Sprintf("pull it again: norion rm %s && norion pull %s", m.Name, m.Name),
		}
	}
	return typed("verify", m.Name.String(), ErrIO, err)
}

func (s *Store) named(ctx context.Context, ref string) (Model, error) {
	if err := ctx.Err(); err != nil {
		return Model{}, err
	}
	return s.resolveName(ref)
}

// Remove forgets a name, and deletes its file when no other name uses it. It returns the bytes
// freed. Errors: ErrName (a path is never removed), ErrUnknownModel, ErrNotPulled, ErrLocked when
// the model is being pulled, ErrPermission, ErrIO.
func (s *Store) Remove(ctx context.Context, ref string) (freedBytes int64, err error) {
	freedBytes, err = s.remove(ctx, ref)
	return freedBytes, typed("remove", clip(ref), ErrIO, err)
}

func (s *Store) remove(ctx context.Context, ref string) (freedBytes int64, err error) {
	name, err := s.pulledName(ctx, ref)
	if err != nil {
		return 0, err
	}
	release, ok, err := s.dir.TryLock(lockName(name))
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, &Error{
			Kind: ErrLocked, Name: name.String(), Hint: "it is being pulled; stop that first",
		}
	}
	defer func() { err = errors.Join(err, release()) }()
	unlock, err := s.lock(ctx, storeLock, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unlock()) }()

	mf, damaged := s.readManifest(name)
	if err := s.dir.Remove(manifestPath(name)); err != nil {
		return 0, err
	}
	if err := s.discard(templatePath(name)); err != nil {
		return 0, err
	}
	if err := s.dir.SyncDir(manifestsDir); err != nil {
		return 0, err
	}
	if damaged != nil {
		return 0, nil // its digest is not known: Prune finds the file
	}
	return s.collect(mf.Digest)
}

// pulledName returns the name in the store that ref means; its manifest may be damaged.
func (s *Store) pulledName(ctx context.Context, ref string) (Name, error) {
	name, err := ParseName(ref)
	if err != nil {
		return Name{}, err
	}
	m, err := s.named(ctx, ref)
	var e *Error
	switch {
	case err == nil:
		return m.Name, nil
	case errors.As(err, &e) && (e.Kind == ErrDamaged || e.Kind == ErrTooNew):
		if damaged, perr := ParseName(e.Name); perr == nil {
			return damaged, nil
		}
	case errors.Is(err, ErrUnknownModel), errors.Is(err, ErrNotPulled):
		e.Hint = "`norion list` shows the models at hand"
	}
	return name, err
}

// collect deletes the blob of d unless a manifest names it or some manifest cannot be read. The
// caller holds the store lock.
func (s *Store) collect(d Digest) (freedBytes int64, err error) {
	used, err := s.used()
	if err != nil || used == nil || used[d] {
		return 0, err
	}
	return s.removeSized(blobPath(d))
}

// used returns the digests that manifests name, or nil when it cannot be known.
func (s *Store) used() (map[Digest]bool, error) {
	names, foreign, err := s.names()
	if err != nil || foreign {
		return nil, err
	}
	used := map[Digest]bool{}
	for _, n := range names {
		mf, err := s.readManifest(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.o.Log.Warn("files are kept: a manifest cannot be read", "model", n.String(),
				"error", err)
			return nil, nil // not known is an answer
		}
		used[mf.Digest] = true
	}
	return used, nil
}

func (s *Store) removeSized(name string) (int64, error) {
	fi, err := s.dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if err := s.dir.Remove(name); err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// Prune deletes what no model needs: interrupted downloads that nobody is working on and files
// without a manifest. It returns the bytes freed. Errors: ErrIO, ErrPermission, ErrCanceled.
func (s *Store) Prune(ctx context.Context) (freedBytes int64, err error) {
	freedBytes, err = s.prune(ctx)
	return freedBytes, typed("prune", "", ErrIO, err)
}

func (s *Store) prune(ctx context.Context) (freedBytes int64, err error) {
	parts, err := s.dir.ReadDir(partialDir)
	if err != nil {
		return 0, err
	}
	for _, p := range parts {
		n, err := s.prunePart(p.Name())
		freedBytes += n
		if err = errors.Join(err, ctx.Err()); err != nil {
			return freedBytes, err
		}
	}
	unlock, err := s.lock(ctx, storeLock, nil)
	if err != nil {
		return freedBytes, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	blobs, err := s.dir.ReadDir(blobsDir)
	if err != nil {
		return freedBytes, err
	}
	used, err := s.used()
	if err != nil || used == nil {
		return freedBytes, err
	}
	for _, b := range blobs {
		d, err := ParseDigest(strings.TrimPrefix(b.Name(), "sha256-"))
		if err != nil || used[d] {
			continue // used, or not ours
		}
		n, err := s.removeSized(path.Join(blobsDir, b.Name()))
		freedBytes += n
		if err != nil {
			return freedBytes, err
		}
	}
	return freedBytes, nil
}

// prunePart deletes a leftover of the pull of a name unless that pull is running.
func (s *Store) prunePart(file string) (freedBytes int64, err error) {
	stem := file
	for _, suffix := range []string{".tmp", ".json", ".part"} {
		stem = strings.TrimSuffix(stem, suffix)
	}
	stem, _, _ = strings.Cut(stem, scratchMark)
	name, err := nameOfFile(stem)
	if err != nil {
		return 0, nil // not ours
	}
	release, ok, err := s.dir.TryLock(lockName(name))
	if err != nil || !ok {
		return 0, err
	}
	defer func() { err = errors.Join(err, release()) }()
	full := path.Join(partialDir, file)
	fi, err := s.dir.Lstat(full)
	if err != nil || !fi.Mode().IsRegular() {
		return 0, s.dir.RemoveAll(full) // a scratch directory
	}
	return s.removeSized(full)
}
