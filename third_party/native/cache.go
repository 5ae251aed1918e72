package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// lockPoll is how often a waiting build looks again.
const lockPoll = 300 * time.Millisecond

// lock waits for the named lock of the cache. The returned function releases it.
func lock(ctx context.Context, cache, name string, log io.Writer) (func(), error) {
	file := filepath.Join(cache, "locks", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, cacheError(cache, err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, cacheError(cache, err)
	}
	for told := false; ; told = true {
		ok, err := tryLock(f)
		if ok {
			return func() { _ = f.Close() }, nil
		}
		if err != nil {
			_ = f.Close()
			return nil, cacheError(cache, err)
		}
		if !told {
			_, _ = fmt.Fprintln(log, "native: another build is at work in the cache; waiting for it")
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

func cacheError(cache string, err error) error {
	return &Error{
		Op: "use the cache", Kind: KindOption, Field: cache, Err: err,
		Hint: "set NORION_CACHE to a directory that can be written",
	}
}

// fillDir makes dir by filling a temporary directory beside it and renaming that: dir is there
// whole or not at all. What an interrupted attempt left is removed by the next one.
func fillDir(dir string, fill func(tmp string) error) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	left, err := filepath.Glob(dir + ".part-*")
	if err != nil {
		return err
	}
	for _, name := range left {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".part-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := fill(tmp); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}
