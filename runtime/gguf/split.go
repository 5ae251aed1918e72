package gguf

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Split says where a file stands in a split model.
type Split struct {
	No      int // position of this shard, from 0
	Count   int // number of shards; 1 when the model is not split
	Tensors int // tensors of all shards together, as stated
}

const (
	keySplitNo      = "split.no"
	keySplitCount   = "split.count"
	keySplitTensors = "split.tensors.count"
)

// Split returns the split facts of the first shard (of the shard itself after Read).
func (f *File) Split() Split {
	s, err := f.split()
	if err != nil {
		return Split{Count: 1, Tensors: len(f.tensors)}
	}
	return s
}

// split reads the split keys with the types that llama.cpp insists on: it aborts on others.
func (f *File) split() (Split, error) {
	s := Split{Count: 1, Tensors: len(f.tensors)}
	count, ok, err := f.splitKey(keySplitCount, TypeUint16)
	if err != nil || !ok || count <= 1 {
		return s, err
	}
	if count > ShardsMax {
		return s, fault(ErrLimit, keySplitCount, -1, "", "%d shards are above %d", count, ShardsMax)
	}
	no, ok, err := f.splitKey(keySplitNo, TypeUint16)
	if err != nil {
		return s, err
	}
	if !ok || no >= count {
		return s, fault(ErrSplit, keySplitNo, -1, hintSplit, "absent, or not below %s", keySplitCount)
	}
	total, ok, err := f.splitKey(keySplitTensors, TypeInt32)
	if err != nil {
		return s, err
	}
	if !ok && no == 0 {
		return s, fault(ErrSplit, keySplitTensors, -1, hintSplit, "absent from the first shard")
	}
	return Split{No: int(no), Count: int(count), Tensors: int(total)}, nil
}

func (f *File) splitKey(key string, want ValueType) (v int64, ok bool, err error) {
	i, ok := f.index[key]
	if !ok {
		return 0, false, nil
	}
	e := f.entries[i]
	if e.typ != want {
		return 0, false, fault(ErrSplit, key, e.off, hintSplit, "type is %s, must be %s", e.typ, want)
	}
	return int64(int32(uint32(e.bits))), true, nil
}

const hintSplit = "put all shards into one directory under their original names"

// withShards opens the rest of a split model around f, which was read from path. It owns f: on
// failure everything is closed.
func (f *File) withShards(path string) (*File, error) {
	fail := func(err error, path string) (*File, error) {
		_ = f.Close() // read only
		var e *Error
		if errors.As(err, &e) && e.Path == "" {
			e.Op, e.Path = "open", path
		}
		return nil, err
	}
	s, err := f.split()
	if err != nil {
		return fail(err, path)
	}
	if s.Count == 1 {
		return f, nil
	}
	suffix := splitSuffix(s.No, s.Count)
	prefix, ok := strings.CutSuffix(path, suffix)
	if !ok {
		return fail(fault(ErrSplit, "file name", -1, "rename it to its original name",
			"shard %d of %d must be named ...%s", s.No+1, s.Count, suffix), path)
	}
	shards := make([]*File, s.Count)
	shards[s.No] = f
	for i := range shards {
		if i == s.No {
			continue
		}
		name := prefix + splitSuffix(i, s.Count)
		if shards[i], err = openShard(name, i, s.Count); err != nil {
			closeAll(shards)
			return fail(err, name)
		}
	}
	g, err := join(shards)
	if err != nil {
		closeAll(shards)
		return fail(err, path)
	}
	return g, nil
}

func splitSuffix(no, count int) string { return fmt.Sprintf("-%05d-of-%05d.gguf", no+1, count) }

func openShard(path string, no, count int) (*File, error) {
	f, err := openOne(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &Error{
				Op: "open", Kind: ErrSplit, Offset: -1, Path: path, Field: "shard",
				Hint: fmt.Sprintf("fetch shard %d of %d too; %s", no+1, count, hintSplit), Err: err,
			}
		}
		return nil, err
	}
	s, err := f.split()
	if err == nil && (s.No != no || s.Count != count) {
		err = fault(ErrSplit, keySplitNo, -1, hintSplit, "says shard %d of %d, expected %d of %d",
			s.No+1, s.Count, no+1, count)
	}
	if err != nil {
		_ = f.Close() // read only
		return nil, err
	}
	return f, nil
}

func closeAll(files []*File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // read only
		}
	}
}

// join makes one File of all shards: metadata of the first, tensors of all.
func join(shards []*File) (*File, error) {
	g := shards[0]
	s, err := g.split()
	if err != nil {
		return nil, err
	}
	for i, f := range shards[1:] {
		for _, t := range f.tensors {
			if _, twice := g.names[t.Name]; twice {
				return nil, &Error{
					Op: "open", Kind: ErrSplit, Path: f.shards[0].path, Offset: -1, Hint: hintSplit,
					Field: "tensor " + clip(t.Name), Err: errors.New("occurs in an earlier shard too"),
				}
			}
			t.Shard = i + 1
			g.names[t.Name] = int32(len(g.tensors))
			g.tensors = append(g.tensors, t)
		}
	}
	if len(g.tensors) != s.Tensors {
		return nil, fault(ErrSplit, keySplitTensors, -1, hintSplit, "says %d tensors, the shards have %d",
			s.Tensors, len(g.tensors))
	}
	for _, f := range shards[1:] {
		g.shards = append(g.shards, f.shards...)
	}
	return g, nil
}
